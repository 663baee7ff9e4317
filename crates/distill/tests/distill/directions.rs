//! Which way the weights went: kept checkpoints, the inputs of each layer, and the way from the start.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use lowchurn_data::collate;
use lowchurn_distill::{
    Event, Way, directions, eigen, kept_update, last_before, readings, start_of, way,
};
use lowchurn_models::{Config, Input, Mode, Wanted};

use crate::{CPU, Toy, checkpoints, golden_folder, names, toy_rows, toy_state};

fn kept() -> Toy {
    Toy::with(|plan| {
        plan.keep_checkpoints = true;
        plan.save_steps = 2;
        plan.dropout = Some(0.2);
    })
}

/// Of which checkpoints are there.
fn steps(toy: &Toy) -> Vec<u64> {
    let number = |name: String| name.strip_prefix("checkpoint-").unwrap().parse().unwrap();
    let mut steps: Vec<u64> = checkpoints(&toy.run_dir()).into_iter().map(number).collect();
    steps.sort_unstable();
    steps
}

/// What stands at the top of the run's folder.
fn files(toy: &Toy) -> BTreeMap<String, Vec<u8>> {
    let names = names(&toy.run_dir()).into_iter().filter(|name| !name.contains("checkpoint"));
    names.map(|name| (name.clone(), fs::read(toy.run_dir().join(&name)).unwrap())).collect()
}

fn of(toy: &Toy) -> Way {
    let model = toy_state(7).model;
    let readings = readings(&model.config).unwrap();
    let found = directions(&model, &readings, &toy.train, 5, &CPU, &mut |_| {}).unwrap();
    way(&toy.run_dir(), &readings, &found, 4).unwrap()
}

#[test]
fn checkpoints_stay_and_change_nothing() {
    let (kept, plain) =
        (kept(), Toy::with(|plan| (plan.save_steps, plan.dropout) = (2, Some(0.2))));
    kept.finish();
    plain.finish();
    assert_eq!(steps(&kept), [0, 2, 4, 6]);
    assert!(steps(&plain).is_empty());
    let before = |toy: &Toy, at: &str| {
        last_before(&toy.run_dir(), at.parse().unwrap(), 6).unwrap().map(|(step, _)| step)
    };
    for (at, expected) in [
        ("50%", Some(2)),
        ("5", Some(4)),
        ("4", Some(4)),
        ("3", Some(2)),
        ("1", None),
        ("100%", Some(6)),
    ] {
        assert_eq!(before(&kept, at), expected, "{at}");
    }
    assert_eq!(before(&plain, "50%"), None);
    let (step, total) = kept_update(&plain.run_dir()).unwrap().unwrap();
    assert!(total == 6 && (1..=6).contains(&step), "{step} of {total}");
    assert_eq!(kept_update(&plain.run_dir().join("none")).unwrap(), None);
    let weights = |toy: &Toy| files(toy).remove("model.safetensors").unwrap();
    assert!(weights(&kept) == weights(&plain));
    let said = start_of(&plain.run_dir()).unwrap_err().to_string();
    let run = plain.run_dir().display().to_string();
    assert_eq!(
        said,
        format!(
            "{run}: 0 checkpoints are kept there, and the way of a run needs one of before its first update and later ones; train \
             it with --keep-checkpoints --save-steps 20"
        )
    );
    // Stopped after each update and gone on with, more of them are kept, and the rest is the same.
    let broken = self::kept();
    let stop = AtomicBool::new(false);
    broken
        .go(&stop, &mut |event| {
            if matches!(event, Event::Stepped { step: 3, .. }) {
                stop.store(true, Ordering::Relaxed);
            }
        })
        .0
        .unwrap();
    assert_eq!(steps(&broken), [0, 2, 3]);
    broken.finish();
    assert_eq!(steps(&broken), [0, 2, 3, 4, 6]);
    assert!(files(&broken) == files(&kept), "other bytes: {:?}", names(&broken.run_dir()));
    let (way, straight) = (of(&broken), of(&kept));
    assert_eq!((way.steps.len(), straight.steps.len()), (5, 4));
    assert_eq!(way.along[2][4], straight.along[2][3]);
}

#[test]
fn a_way_begins_where_the_run_began_and_is_of_every_layer() {
    let toy = kept();
    toy.finish();
    let way = of(&toy);
    assert_eq!(way.steps, [0, 2, 4, 6]);
    assert_eq!(way.along.len(), 3, "two layers and the head");
    for layer in &way.along {
        assert_eq!(layer[0], [0.0; 4]);
        assert!(layer[1..].iter().all(|c| c.len() == 4 && c.iter().all(|x| *x > 0.0)), "{layer:?}");
    }
    let again =
        rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap().install(|| of(&toy));
    assert_eq!(again, way);
}

/// What the layers read, row by row, against the sums over batches.
#[test]
fn directions_are_those_of_the_inputs() {
    let model = toy_state(7).model;
    let rows = toy_rows(9, 3);
    let readings = readings(&model.config).unwrap();
    let named: Vec<(&str, usize)> =
        readings.iter().map(|reading| (reading.name.as_str(), reading.weights.len())).collect();
    assert_eq!(named, [("layer 0", 2), ("layer 1", 2), ("head", 1)]);
    assert_eq!(readings[1].weights[0], "bert.encoder.layer.1.attention.self.query.weight");
    let found = directions(&model, &readings, &rows, 4, &CPU, &mut |_| {}).unwrap();
    let wanted = Wanted { hidden: BTreeSet::from([1]), attention: BTreeSet::new() };
    let width = model.config.hidden_size;
    let (mut sum, mut n) = (vec![0.0; width * width], 0);
    for row in 0..rows.rows() {
        let batch = collate(&rows, &[row as u32], model.config.pad_token_id);
        let input =
            Input::new(&batch.tokens, &batch.types, &batch.lengths, batch.width, &CPU).unwrap();
        let states = model.forward_states(&input, Mode::Eval, &wanted).unwrap();
        for token in states.hidden[&1].to_vec2::<f32>().unwrap() {
            n += 1;
            for (i, a) in token.iter().enumerate() {
                for (j, b) in token.iter().enumerate() {
                    sum[i * width + j] += f64::from(*a) * f64::from(*b);
                }
            }
        }
    }
    sum.iter_mut().for_each(|x| *x /= f64::from(n));
    let expected = eigen(&sum, width);
    for (found, expected) in found[1].values.iter().zip(&expected.values) {
        assert!((found - expected).abs() < 1e-6 * expected.abs().max(1e-3), "{found} {expected}");
    }
}

#[test]
fn models_with_a_norm_in_front_or_shared_layers_have_a_head_alone() {
    let of = |folder: &str| {
        let config = Config::open(&golden_folder().join(folder)).unwrap();
        let found = readings(&config).unwrap();
        found.into_iter().map(|reading| (reading.name, reading.weights)).collect::<Vec<_>>()
    };
    for folder in ["modernbert_cls", "architectures/albert"] {
        assert_eq!(
            of(folder),
            [("head".to_string(), vec!["classifier.weight".to_string()])],
            "{folder}"
        );
    }
    let found = of("architectures/roberta");
    assert_eq!(found.last().unwrap().1, ["classifier.out_proj.weight"]);
    assert!(found.len() > 1);
}
