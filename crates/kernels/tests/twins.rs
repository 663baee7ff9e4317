//! Each fused operation equals its slow twin, values and gradients, on many shapes, and gives the same bytes
//! for one thread and for several.

use candle_core::{Device, Result, Tensor};
use lowchurn_kernels::{
    Dropout, Gelu, Gradient, Precision, Sequences, add, backward, composed, dropout, embedding,
    gelu, layer_norm, linear,
};

mod differences;
mod twin;
use differences::check_differences;
use twin::{Op, check, difference, flat, var};

const F32: Precision = Precision::F32;

#[test]
fn linear_equals_its_twin() {
    for (n, t, i, o) in [(1, 1, 1, 1), (2, 3, 5, 7), (3, 17, 64, 33), (32, 13, 128, 512)] {
        let inputs = [var(&[n, t, i], 1), var(&[o, i], 2), var(&[o], 3)];
        check(
            &format!("linear {n}x{t}x{i}->{o}"),
            &inputs,
            &|x| linear(&x[0], &x[1], Some(&x[2]), F32),
            &|x| composed::linear(&x[0], &x[1], Some(&x[2]), F32),
        );
        check("linear without bias", &inputs[..2], &|x| linear(&x[0], &x[1], None, F32), &|x| {
            composed::linear(&x[0], &x[1], None, F32)
        });
    }
}

/// candle multiplies a transposed batch by a broadcast matrix wrongly; ours copies first.
#[test]
fn linear_takes_a_transposed_input() {
    check(
        "linear of a transposed view",
        &[var(&[4, 6, 5], 1), var(&[3, 6], 2), var(&[3], 3)],
        &|x| linear(&x[0].transpose(1, 2)?, &x[1], Some(&x[2]), F32),
        &|x| composed::linear(&x[0].transpose(1, 2)?.contiguous()?, &x[1], Some(&x[2]), F32),
    );
}

#[test]
fn layer_norm_equals_its_twin() {
    // Not C = 2: the norm of two numbers is ±1, so the gradient is rounding alone.
    for (n, t, c) in [(1, 1, 3), (2, 3, 5), (7, 9, 33), (32, 40, 384)] {
        check(
            &format!("layer norm {n}x{t}x{c}"),
            &[var(&[n, t, c], 1), var(&[c], 2), var(&[c], 3)],
            &|x| layer_norm(&x[0], &x[1], &x[2], 1e-5),
            &|x| composed::layer_norm(&x[0], &x[1], &x[2], 1e-5),
        );
    }
}

#[test]
fn gelu_equals_its_twin() {
    for kind in [Gelu::Erf, Gelu::Tanh] {
        for n in [1, 15, 16, 70_001] {
            check(
                &format!("gelu {kind:?} of {n}"),
                &[var(&[n], 1)],
                &|x| gelu(&(&x[0] * 3.0)?, kind),
                &|x| composed::gelu(&(&x[0] * 3.0)?, kind),
            );
        }
    }
}

#[test]
fn add_equals_its_twin() {
    for n in [1, 16_385, 100_000] {
        let inputs = [var(&[n], 1), var(&[n], 2)];
        check("add", &inputs, &|x| add(&x[0], &x[1]), &|x| composed::add(&x[0], &x[1]));
    }
}

#[test]
fn dropout_equals_its_twin() {
    for (n, p) in [(1, 0.5), (40_000, 0.1), (40_000, 0.0)] {
        let d = Dropout { p, key: 0x1234_5678_9abc };
        check("dropout", &[var(&[n], 1)], &|x| dropout(&x[0], d), &|x| composed::dropout(&x[0], d));
    }
}

#[test]
fn embedding_equals_its_twin() {
    let ids = Tensor::new(&[[0u32, 3, 3, 9], [3, 9, 1, 0]], &Device::Cpu).unwrap();
    for ids in [ids.clone(), ids.flatten_all().unwrap(), ids.reshape((2, 2, 2)).unwrap()] {
        check("embedding", &[var(&[10, 6], 1)], &|x| embedding(&x[0], &ids), &|x| {
            composed::embedding(&x[0], &ids)
        });
        // What isn't a variable gets its gradient through candle, and whole.
        let doubled = |x: &[Tensor]| &x[0] * 2.0;
        check(
            "embedding in a table that was made",
            &[var(&[10, 6], 1)],
            &|x| embedding(&doubled(x)?, &ids),
            &|x| composed::embedding(&doubled(x)?, &ids),
        );
    }
}

/// The gradient holds the rows that were read, once each, and those of two readings add up; beside a use of the whole table
/// it is whole.
#[test]
fn the_gradient_of_a_table_is_its_rows() {
    let table = var(&[10, 6], 1);
    let read = |ids: &[u32]| {
        let ids = Tensor::new(ids, &Device::Cpu).unwrap();
        embedding(&table, &ids).unwrap().sqr().unwrap().sum_all().unwrap()
    };
    let loss = (read(&[7, 0, 7]) + read(&[0, 3])).unwrap();
    let found = backward(&loss).unwrap().remove(&table).unwrap().unwrap();
    let Gradient::Rows(rows) = &found else { panic!("not in rows") };
    assert_eq!((rows.ids(), rows.shape()), (&[0, 3, 7][..], (10, 6)));
    let expected = flat(&table);
    for (id, row) in rows.iter() {
        let times = if id == 3 { 2.0 } else { 4.0 }; // read once or twice
        let expected = expected[id as usize * 6..][..6].iter().map(|x| x * times);
        assert!(row.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{id}");
    }
    let loss = (loss + table.sum_all().unwrap()).unwrap();
    let both = backward(&loss).unwrap().remove(&table).unwrap().unwrap();
    assert!(matches!(both, Gradient::Whole(_)));
    let expected = (found.to_tensor().unwrap() + 1.0).unwrap();
    assert!(difference(&both.to_tensor().unwrap(), &expected) < 1e-6);
}

/// Central differences in f64 through the slow twins (which the fused forms equal): the gradients are the functions' own.
#[test]
fn gradients_equal_central_differences() {
    const DROPPED: Dropout = Dropout { p: 0.3, key: 5 };
    let cases: Vec<(&str, Vec<Vec<usize>>, Op)> = vec![
        ("linear", vec![vec![2, 3, 4], vec![5, 4], vec![5]], &|x| {
            composed::linear(&x[0], &x[1], Some(&x[2]), F32)
        }),
        ("layer norm", vec![vec![2, 3, 4], vec![4], vec![4]], &|x| {
            composed::layer_norm(&x[0], &x[1], &x[2], 1e-5)
        }),
        ("gelu", vec![vec![11]], &|x| composed::gelu(&x[0], Gelu::Erf)),
        ("gelu tanh", vec![vec![11]], &|x| composed::gelu(&x[0], Gelu::Tanh)),
        ("tanh", vec![vec![11]], &|x| composed::tanh(&x[0])),
        ("relu", vec![vec![11]], &|x| composed::relu(&x[0])),
        ("log softmax", vec![vec![3, 5]], &|x| composed::log_softmax(&x[0])),
        ("dropout", vec![vec![50]], &|x| composed::dropout(&x[0], DROPPED)),
        ("attention", vec![vec![5, 4]; 3], &|x| {
            let texts = Sequences::packed(&[3, 2], 3)?;
            composed::attention(&x[0], &x[1], &x[2], &texts, 2, Some(DROPPED))
        }),
    ];
    for (name, shapes, op) in cases {
        // candle's own GELU backward carries six digits, hence no tighter.
        check_differences(name, &shapes, 3e-6, op);
    }
}

/// A parameter used twice, by an operation of ours and by one of candle's, gets the sum.
#[test]
fn gradients_of_shared_parameters_add_up() {
    let (x, w) = (var(&[3, 4], 1), var(&[4, 4], 2));
    let loss = |linear: fn(&Tensor, &Tensor, Option<&Tensor>, Precision) -> Result<Tensor>| {
        let once = linear(&x, &w, None, F32).unwrap();
        let twice = linear(&once, &w, None, F32).unwrap();
        (twice.sum_all().unwrap() + w.sqr().unwrap().sum_all().unwrap()).unwrap()
    };
    let fast = backward(&loss(linear)).unwrap().remove(&w).unwrap().unwrap().to_tensor().unwrap();
    let slow = loss(composed::linear).backward().unwrap().remove(&w).unwrap();
    assert!(difference(&fast, &slow) < 1e-6);
}
