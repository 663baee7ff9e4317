//! Models as they are served: how far f16 and the other GELU move a logit, and that nothing else does.

use candle_core::{DType, Tensor};
use lowchurn_models::{Classifier, GeluForm, Head, Mode, Numbers, Numerics};

use crate::golden::batch;
use crate::{CPU, distance, golden, input};

const AS_TRAINED: Numerics = Numerics { numbers: Numbers::F32, gelu: GeluForm::AsTrained };
const TANH: Numerics = Numerics { gelu: GeluForm::Tanh, ..AS_TRAINED };
const HALF: Numerics = Numerics { numbers: Numbers::F16, ..AS_TRAINED };

fn logits(folder: &str, numerics: Numerics) -> Tensor {
    let (model, _) = Classifier::open(&golden().join(folder), Head::FromCheckpoint, &CPU).unwrap();
    let rows: [&[u32]; 3] = [&[5, 17, 45, 99, 6], &[7, 8], &[9, 10, 11, 60, 61, 62, 63, 12]];
    let logits = model.served(numerics).unwrap().forward(&input(&rows, 8), Mode::Eval).unwrap();
    logits.to_dtype(DType::F32).unwrap()
}

/// f16 has 11 bits: a relative error of 5e-4 a number. Logits of these checkpoints are below 4; a half that went unrounded
/// would move nothing, a broken one would move them by tenths.
#[test]
fn f16_moves_logits_of_every_architecture_a_little() {
    let entries = std::fs::read_dir(golden().join("architectures")).unwrap();
    let folders = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let names =
        folders.map(|path| format!("architectures/{}", path.file_name().unwrap().display()));
    for name in names.chain(["bert_tiny".to_string()]) {
        let plain = logits(&name, AS_TRAINED);
        let moved = distance(&logits(&name, HALF), &plain);
        assert!(moved > 1e-6 && moved < 2e-2, "{name}: {moved}");
        assert_eq!(distance(&logits(&name, AS_TRAINED), &plain), 0.0, "{name}");
    }
}

/// The logits of `gelu_new` are PyTorch's.
#[test]
fn tanh_is_the_other_gelu() {
    let expected =
        candle_core::safetensors::load(golden().join("bert_tiny.safetensors"), &CPU).unwrap();
    let (model, _) =
        Classifier::open(&golden().join("bert_tiny"), Head::FromCheckpoint, &CPU).unwrap();
    let found = model.served(TANH).unwrap().forward(&batch(&expected), Mode::Eval);
    let distance = distance(&found.unwrap(), &expected["logits_gelu_new"]);
    assert!(distance < 1e-5, "{distance}");
}

/// PyTorch's own f16 is 1.4e-3 and 2.3e-3 away from f32 here; the two round in different places.
#[test]
fn f16_is_about_that_of_pytorch() {
    let load = |name: &str| candle_core::safetensors::load(golden().join(name), &CPU).unwrap();
    let (rows, expected) = (load("bert_tiny.safetensors"), load("served.safetensors"));
    for (gelu, name) in [(GeluForm::AsTrained, "f16"), (GeluForm::Tanh, "f16_tanh")] {
        let (model, _) =
            Classifier::open(&golden().join("bert_tiny"), Head::FromCheckpoint, &CPU).unwrap();
        let model = model.served(Numerics { gelu, ..HALF }).unwrap();
        let found = model.forward(&batch(&rows), Mode::Eval).unwrap();
        assert_eq!(found.dtype(), DType::F16);
        let distance = distance(&found.to_dtype(DType::F32).unwrap(), &expected[name]);
        assert!(distance < 4e-3, "{name}: {distance}");
    }
}

/// A model of another activation has no GELU to replace.
#[test]
fn relu_stays() {
    let mut tiny = crate::Checkpoint::tiny();
    tiny.config["hidden_act"] = "relu".into();
    let rows: [&[u32]; 1] = [&[5, 17, 45, 99, 6]];
    let of = |numerics| {
        let model = tiny.open().unwrap().0.served(numerics).unwrap();
        model.forward(&input(&rows, 5), Mode::Eval).unwrap()
    };
    assert_eq!(distance(&of(TANH), &of(AS_TRAINED)), 0.0);
}
