//! Numbers of PyTorch and of the papers, gradients against finite differences, and what can't be run.

use candle_core::{Device, Tensor, Var};
use lowchurn_kernels::Sequences;
use serde_json::Value;

use super::known::{OnHost, known, put_in, single_rows, texts_of};
use super::losses::mean_squares;
use super::relation::{attention_scores, relation};
use super::*;

fn read(name: &str) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/");
    serde_json::from_slice(&std::fs::read(format!("{path}{name}")).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(all) => all.iter().flat_map(numbers).collect(),
        other => vec![other.as_f64().unwrap()],
    }
}

fn matrix(value: &Value) -> Var {
    let values: Vec<f32> = numbers(value).iter().map(|&x| x as f32).collect();
    let n = value.as_array().unwrap().len();
    let c = values.len() / n;
    Var::from_vec(values, (n, c), &Device::Cpu).unwrap()
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{what}: {a}, expected {b}");
    }
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
    values.into_iter().map(f64::from).collect()
}

/// A loss by its name in states.json. (N, C)s → (B,)
fn loss(
    name: &str,
    students: &[Tensor],
    teachers: &[Tensor],
    texts: &[(usize, usize)],
    heads: usize,
) -> Tensor {
    let host = |x: &Tensor| OnHost::of(x, texts).unwrap();
    match name {
        "relation" => {
            let (s, t) = (host(&students[0]), host(&teachers[0]));
            known(&students[0], texts, |text| relation(s.text(text), t.text(text), heads)).unwrap()
        }
        "attention" => {
            let all: Vec<OnHost> = students.iter().chain(teachers).map(host).collect();
            let of = |text: usize| {
                let at = |n: usize| all[n].text(text);
                attention_scores((at(0), at(1)), (at(2), at(3)), heads)
            };
            let (q, k): (Vec<_>, Vec<_>) = (0..texts.len()).map(of).unzip();
            let q = put_in(&students[0], texts, q).unwrap();
            (q + put_in(&students[1], texts, k).unwrap()).unwrap()
        }
        "hidden" => mean_squares(&students[0], &teachers[0], texts).unwrap(),
        "cosine" | "mse" => {
            let kind = if name == "mse" { VectorLoss::Mse } else { VectorLoss::Cosine };
            let theirs: Vec<f32> = teachers[0].flatten_all().unwrap().to_vec1().unwrap();
            kind.rows(&students[0], &theirs).unwrap()
        }
        other => panic!("{other}"),
    }
}

/// tests/golden/make_states.py, from PyTorch in f64; losses are worked out in f32. 3e-7 was reached.
#[test]
fn values_and_gradients_are_those_of_pytorch() {
    let golden = read("states.json");
    let lengths: Vec<u32> = numbers(&golden["lengths"]).iter().map(|&n| n as u32).collect();
    let heads = golden["heads"].as_u64().unwrap() as usize;
    let packed = texts_of(&Sequences::packed(&lengths, 5).unwrap());
    let weights: Vec<f32> = numbers(&golden["weights"]).iter().map(|&x| x as f32).collect();
    let weights = Tensor::from_vec(weights, 2, &Device::Cpu).unwrap();
    let mut n_checked = 0;
    for case in golden["cases"].as_array().unwrap() {
        let name = case["loss"].as_str().unwrap();
        let all =
            |key: &str| case[key].as_array().unwrap().iter().map(matrix).collect::<Vec<Var>>();
        let students = all("students");
        let tensors =
            |vars: &[Var]| vars.iter().map(|var| var.as_tensor().clone()).collect::<Vec<_>>();
        let texts = match name {
            "cosine" | "mse" => single_rows(2),
            _ => packed.clone(),
        };
        let rows = loss(name, &tensors(&students), &tensors(&all("teachers")), &texts, heads);
        assert_close(&flat(&rows), &numbers(&case["rows"]), 2e-6, name);
        let grads = (rows * &weights).unwrap().sum_all().unwrap().backward().unwrap();
        for (student, expected) in students.iter().zip(case["gradients"].as_array().unwrap()) {
            assert_close(&flat(grads.get(student).unwrap()), &numbers(expected), 2e-6, name);
            n_checked += 1;
        }
    }
    assert_eq!(n_checked, 6);
}

/// The worked numbers of the papers: MiniLMv2's relation of two tokens, DistilBERT's cosine.
#[test]
fn worked_examples_of_the_papers() {
    let papers = read("papers_examples.json");
    let example = &papers["G9_minilmv2_relation"];
    let (s, t) = (matrix(&example["q_student"]), matrix(&example["q_teacher"]));
    let found = loss("relation", &[s.as_tensor().clone()], &[t.as_tensor().clone()], &[(0, 2)], 1);
    assert_close(&flat(&found), &[example["loss"].as_f64().unwrap()], 1e-6, "G9");
    let row = |values: [f32; 3]| Tensor::new(&[values], &Device::Cpu).unwrap();
    let found = loss("cosine", &[row([1.0, 2.0, -1.0])], &[row([0.5, 1.5, 0.0])], &[(0, 1)], 1);
    assert_close(
        &flat(&found),
        &[papers["G10_cosine_hidden"]["value"].as_f64().unwrap()],
        1e-6,
        "G10",
    );
}

/// In the padded layout of devices, rows of padding change no loss and get no gradient.
#[test]
fn padding_is_left_out() {
    let golden = read("states.json");
    let case = &golden["cases"][0];
    let (packed, teacher) = (matrix(&case["students"][0]), matrix(&case["teachers"][0]));
    let pad = |x: &Tensor| {
        let c = x.dim(1).unwrap();
        let noise = Tensor::full(9f32, (2, c), &Device::Cpu).unwrap();
        let parts = [x.narrow(0, 0, 3).unwrap(), noise, x.narrow(0, 3, 5).unwrap()];
        Tensor::cat(&parts, 0).unwrap()
    };
    let padded = Var::from_tensor(&pad(packed.as_tensor())).unwrap();
    let texts = texts_of(&Sequences::padded(&[3, 5], 5).unwrap());
    let rows =
        loss("relation", &[padded.as_tensor().clone()], &[pad(teacher.as_tensor())], &texts, 4);
    assert_close(&flat(&rows), &numbers(&case["rows"]), 2e-6, "padded");
    let grads = rows.sum_all().unwrap().backward().unwrap();
    let gradient = grads.get(&padded).unwrap().narrow(0, 3, 2).unwrap();
    assert_eq!(flat(&gradient), vec![0.0; 16]);
}

#[test]
fn a_vector_of_nothing_is_no_trouble() {
    let zero = Var::from_vec(vec![0f32; 4], (1, 4), &Device::Cpu).unwrap();
    let rows = VectorLoss::Cosine.rows(zero.as_tensor(), &[1.0, 2.0, 3.0, 4.0]).unwrap();
    assert_eq!(flat(&rows), [1.0]);
    let grads = rows.sum_all().unwrap().backward().unwrap();
    assert_eq!(flat(grads.get(&zero).unwrap()), [0.0; 4]);
    let error = VectorLoss::Mse.rows(zero.as_tensor(), &[1.0]).unwrap_err();
    assert_eq!(error.to_string(), "1 numbers of the teacher's vectors, expected 1 times 4");
}

fn config(layers: usize, width: usize, heads: usize) -> Config {
    let raw = serde_json::json!({
        "model_type": "bert", "vocab_size": 30, "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "intermediate_size": 8, "max_position_embeddings": 16
    });
    let Value::Object(raw) = raw else { panic!("an object") };
    Config::parse(raw, std::path::Path::new("config.json")).unwrap()
}

#[test]
fn layers_follow_those_that_stand_as_high() {
    let check = |m: usize, n: usize, hidden: &[usize], attention: &[usize]| {
        let (student, teacher) = (config(m, 8, 2), config(n, 8, 2));
        let all: Vec<usize> = (0..=m).map(|at| below(at, &student, &teacher)).collect();
        assert_eq!(all, hidden);
        let all: Vec<usize> = (0..m).map(|at| followed(at, &student, &teacher)).collect();
        assert_eq!(all, attention);
    };
    check(4, 12, &[0, 3, 6, 9, 12], &[2, 5, 8, 11]);
    check(3, 6, &[0, 2, 4, 6], &[1, 3, 5]);
    check(2, 2, &[0, 1, 2], &[0, 1]);
    check(2, 5, &[0, 2, 5], &[1, 4]);
}

#[test]
fn models_that_cannot_be_held_together() {
    let off = StateTerms::default();
    let check = |terms: StateTerms, student: Config, teacher: Config, message: &str| {
        let found = terms.check_models(&student, &teacher).map_err(|error| error.to_string());
        assert_eq!(found, if message.is_empty() { Ok(()) } else { Err(message.into()) });
    };
    let hidden = StateTerms { hidden_weight: 1.0, ..off };
    check(hidden, config(2, 8, 2), config(3, 16, 4), "");
    check(
        hidden,
        config(4, 8, 2),
        config(3, 8, 2),
        "the student has 4 layers and the teacher 3, so some would have none to follow; take a deeper teacher, or \
         --vector-weight alone",
    );
    check(StateTerms { vector_weight: 1.0, ..off }, config(4, 8, 2), config(3, 8, 2), "");
    let attention = StateTerms { attention_weight: 1.0, ..off };
    check(attention, config(2, 8, 2), config(3, 16, 2), "");
    check(
        attention,
        config(2, 8, 2),
        config(3, 16, 4),
        "attention scores are compared head by head, but the student has 2 heads and the teacher 4; use --relation-weight, \
         which needs no such thing",
    );
    let relation = |heads| StateTerms { relation_weight: 1.0, relation_heads: heads, ..off };
    check(relation(Some(8)), config(2, 8, 2), config(3, 16, 4), "");
    check(relation(None), config(2, 8, 2), config(3, 16, 4), "");
    check(
        relation(Some(3)),
        config(2, 8, 2),
        config(3, 24, 4),
        "the student is 8 wide, which 3 relation heads don't divide; give --relation-heads that divide 8 and 24",
    );
    check(
        relation(Some(4)),
        config(2, 8, 2),
        config(3, 18, 2),
        "the teacher is 18 wide, which 4 relation heads don't divide; give --relation-heads that divide 8 and 18",
    );
}

#[test]
fn impossible_weights_are_refused() {
    let said = |terms: StateTerms| terms.check().map(|_| ()).map_err(|error| error.to_string());
    let off = StateTerms::default();
    assert_eq!(
        said(off),
        Err("states is without a weight, expected a hidden, attention, relation or vector weight above 0".into())
    );
    assert_eq!(said(StateTerms { vector_weight: 1.0, ..off }), Ok(()));
    assert_eq!(
        said(StateTerms { hidden_weight: -1.0, ..off }),
        Err("hidden_weight is -1, expected 0 or a positive number".into())
    );
    assert_eq!(
        said(StateTerms { relation_weight: f64::NAN, ..off }),
        Err("relation_weight is NaN, expected 0 or a positive number".into())
    );
    assert_eq!(
        said(StateTerms { relation_weight: 1.0, relation_heads: Some(0), ..off }),
        Err("relation_heads is 0, expected at least 1".into())
    );
}

#[test]
fn other_tokens_are_refused() {
    let rows = |tokens: &[u32]| Encoded {
        tokens: tokens.to_vec(),
        types: vec![0; tokens.len()],
        offsets: vec![0, 2, tokens.len()],
        ids: vec!["a".into(), "b".into()],
        labels: vec![None; 2],
        n_truncated: 0,
        ..Encoded::default()
    };
    assert!(check_same_tokens(&rows(&[1, 2, 3]), &rows(&[1, 2, 3])).is_ok());
    let error = check_same_tokens(&rows(&[1, 2, 3]), &rows(&[1, 2, 3, 4])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "teacher and student read different tokens: row b is 1 tokens to the student and 2 to the teacher; hidden, attention and \
         relation weights need one tokenizer, so leave them out and take --vector-weight, which doesn't"
    );
}

/// Blocks are texts, whatever the threads.
#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let golden = read("states.json");
    let of = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let case = &golden["cases"][0];
            let (student, teacher) = (matrix(&case["students"][0]), matrix(&case["teachers"][0]));
            let inputs = (&[student.as_tensor().clone()], &[teacher.as_tensor().clone()]);
            let rows = loss("relation", inputs.0, inputs.1, &[(0, 3), (3, 5)], 4);
            let grads = rows.sum_all().unwrap().backward().unwrap();
            let gradient = flat(grads.get(&student).unwrap());
            flat(&rows).into_iter().chain(gradient).map(f64::to_bits).collect::<Vec<_>>()
        })
    };
    let one = of(1);
    assert_eq!(of(2), one);
    assert_eq!(of(3), one);
}
