//! Attention with terms of distance equals its slow twin, values and all parameters' gradients, in both layouts of the texts
//! and for any number of threads; the rows of distances are PyTorch's.

use std::sync::Arc;

use candle_core::{Device, Tensor, Var};
use lowchurn_kernels::{
    Affine, AttentionDropout, Buckets, Disentangled, Dropout, Half, Precision, Relation,
    RelativeBias, SelfAttention, Sequences, backward, composed, encoder,
};

mod differences;
mod twin;
use differences::check_differences;
use twin::{check, check_but, difference, flat, numbers, var};

const F32: Precision = Precision::F32;
const DROPPED: Option<Dropout> = Some(Dropout { p: 0.2, key: 77 });

fn affine(x: &[Tensor], at: usize) -> Affine {
    Affine { weight: x[at].clone(), bias: x[at + 1].clone() }
}

/// Weights as small as trained ones, so that sums stay of order one.
fn scaled(shape: &[usize], seed: u32) -> Var {
    let scale = 1.0 / (shape[shape.len() - 1] as f64).sqrt();
    Var::from_tensor(&(var(shape, seed).as_tensor() * scale).unwrap()).unwrap()
}

/// A form of relation over the parameters that stand behind those of `layer`, and which gradients are rounding alone.
struct Form {
    name: &'static str,
    parameters: Vec<Var>,
    of_rounding: Vec<usize>,
    relation: fn(&[Tensor]) -> Relation,
}

/// The bias of what is a product with each query is the same for all its scores.
const KEY_BIAS: usize = 4;

const LOGARITHMIC: Buckets = Buckets::Centred { span: 8, farthest: Some(32) };
const PLAIN: Buckets = Buckets::Centred { span: 16, farthest: None };
const BOTH_SIDES: Buckets = Buckets::BothSides { rows: 32, farthest: 128 };

fn forms(c: usize, heads: usize) -> Vec<Form> {
    let pair = |seed| [scaled(&[c, c], seed), var(&[c], seed + 1)];
    let with = |table: Var, pairs: &[[Var; 2]]| {
        std::iter::once(table).chain(pairs.iter().flatten().cloned()).collect::<Vec<Var>>()
    };
    vec![
        Form {
            name: "bias",
            parameters: vec![var(&[32, heads], 40)],
            of_rounding: vec![KEY_BIAS],
            relation: |x| {
                Relation::Bias(RelativeBias { table: x[11].clone(), buckets: BOTH_SIDES })
            },
        },
        Form {
            name: "shared with queries and keys, normed",
            parameters: with(var(&[16, c], 41), &[[var(&[c], 42), var(&[c], 43)]]),
            of_rounding: vec![],
            relation: |x| {
                Relation::Disentangled(Disentangled {
                    table: x[11].clone(),
                    norm: Some(affine(x, 12)),
                    key: Some(affine(x, 3)),
                    query: Some(affine(x, 1)),
                    buckets: LOGARITHMIC,
                })
            },
        },
        Form {
            name: "both of its own",
            parameters: with(var(&[32, c], 44), &[pair(45), pair(47)]),
            of_rounding: vec![13],
            relation: |x| {
                Relation::Disentangled(Disentangled {
                    table: x[11].clone(),
                    norm: None,
                    key: Some(affine(x, 12)),
                    query: Some(affine(x, 14)),
                    buckets: PLAIN,
                })
            },
        },
        Form {
            name: "content to position",
            parameters: with(var(&[16, c], 49), &[pair(50)]),
            of_rounding: vec![KEY_BIAS, 13],
            relation: |x| {
                Relation::Disentangled(Disentangled {
                    table: x[11].clone(),
                    norm: None,
                    key: Some(affine(x, 12)),
                    query: None,
                    buckets: LOGARITHMIC,
                })
            },
        },
        Form {
            name: "position to content",
            parameters: with(var(&[32, c], 52), &[pair(53)]),
            of_rounding: vec![],
            relation: |x| {
                Relation::Disentangled(Disentangled {
                    table: x[11].clone(),
                    norm: None,
                    key: None,
                    query: Some(affine(x, 12)),
                    buckets: PLAIN,
                })
            },
        },
    ]
}

/// x (N, C) and the parameters of a layer without those of its relation.
fn layer(n: usize, c: usize) -> Vec<Var> {
    let mut inputs = vec![var(&[n, c], 1)];
    for seed in 0..4 {
        inputs.extend([scaled(&[c, c], 10 + seed), var(&[c], 20 + seed)]);
    }
    inputs.extend([var(&[c], 30), var(&[c], 31)]);
    inputs
}

fn self_attention_of(x: &[Tensor], heads: usize, relation: Relation) -> SelfAttention {
    let [query, key, value, output, norm] = [1, 3, 5, 7, 9].map(|at| affine(x, at));
    SelfAttention { query, key, value, output, norm, eps: 1e-5, heads, relation }
}

/// 1 on rows of tokens and 0 on rows of padding, (N, 1).
fn tokens(s: &Sequences) -> Tensor {
    let is_token = |&place: &u32| {
        (place as usize % s.width()) < s.lengths()[place as usize / s.width()] as usize
    };
    let flat: Vec<f32> =
        s.places().iter().map(|place| f32::from(u8::from(is_token(place)))).collect();
    Tensor::from_vec(flat, (s.rows(), 1), &Device::Cpu).unwrap()
}

fn equals_its_twin(s: &Arc<Sequences>, c: usize, heads: usize) {
    // Down to gradients of order one: what is rounding alone is held to a number, not to the others' size.
    let mask = (tokens(s) * 0.125).unwrap();
    for dropped in [None, DROPPED] {
        let other = |key| dropped.map(|dropped| Dropout { key, ..dropped });
        let dropped =
            AttentionDropout { probabilities: dropped, output: other(5), relation: other(6) };
        for form in forms(c, heads) {
            let inputs = [layer(s.rows(), c), form.parameters.clone()].concat();
            let half = |x: &[Tensor]| self_attention_of(x, heads, (form.relation)(x));
            check_but(
                &format!("{} of {} rows {dropped:?}", form.name, s.rows()),
                &form.of_rounding,
                &inputs,
                &|x| {
                    encoder(&x[0], s, vec![Half::Attention(half(x), dropped)], F32)?
                        .broadcast_mul(&mask)
                },
                &|x| half(x).in_parts(&x[0], s, dropped, F32)?.broadcast_mul(&mask),
            );
        }
    }
}

/// In bf16 both sides round numbers that differ in their last bits, so they agree to a step of bf16, 2⁻⁸.
#[test]
fn in_bf16_it_is_near_its_twin() {
    let (s, c) = (Arc::new(Sequences::packed(&[13, 9, 4], 13).unwrap()), 24);
    for form in forms(c, 3) {
        let inputs = [layer(s.rows(), c), form.parameters.clone()].concat();
        let x: Vec<Tensor> = inputs.iter().map(|v| v.as_tensor().clone()).collect();
        let half = self_attention_of(&x, 3, (form.relation)(&x));
        let gradients = |y: Tensor| {
            let w = Tensor::from_vec(numbers(y.elem_count(), 99), y.shape(), y.device()).unwrap();
            let mut grads = backward(&(&y * w).unwrap().sum_all().unwrap()).unwrap();
            let of = |v: &Var| grads.remove(v).unwrap().unwrap().to_tensor().unwrap();
            std::iter::once(y.clone()).chain(inputs.iter().map(of)).collect::<Vec<Tensor>>()
        };
        let dropped = AttentionDropout::default();
        let fused = |precision| {
            let halves = vec![Half::Attention(half.clone(), dropped)];
            gradients(encoder(&x[0], &s, halves, precision).unwrap())
        };
        let slow = gradients(half.in_parts(&x[0], &s, dropped, Precision::Bf16).unwrap());
        let (fast, in_f32) = (fused(Precision::Bf16), fused(F32));
        for (at, (fast, slow)) in fast.iter().zip(&slow).enumerate() {
            if at == 0 || !form.of_rounding.contains(&(at - 1)) {
                let d = difference(fast, slow);
                assert!(d < 1.0 / 256.0, "{}: output {at} is off by {d}", form.name);
            }
        }
        assert!(difference(&fast[0], &in_f32[0]) > 1e-4, "{} isn't rounded", form.name);
    }
}

#[test]
fn short_texts_equal_their_twin() {
    for (lengths, t) in [(vec![2], 2), (vec![5, 3, 1], 5), (vec![13, 13, 9, 2], 13)] {
        equals_its_twin(&Arc::new(Sequences::packed(&lengths, t).unwrap()), 24, 3);
        let padded = Arc::new(Sequences::padded(&lengths, t).unwrap());
        equals_its_twin(&padded, 24, 3);
    }
}

/// More texts than groups whose gradients are summed, and more tokens than the span of near distances.
#[test]
fn many_and_long_texts_equal_their_twin() {
    let many: Vec<u32> = (1..=12).collect();
    equals_its_twin(&Arc::new(Sequences::packed(&many, 12).unwrap()), 24, 3);
    equals_its_twin(&Arc::new(Sequences::packed(&[70, 33], 70).unwrap()), 64, 2);
}

/// The table and its norm serve two layers: their gradients are sums.
#[test]
fn a_table_of_two_layers() {
    let (s, c) = (Arc::new(Sequences::packed(&[5, 7, 1], 7).unwrap()), 24);
    let form = &forms(c, 3)[1];
    let inputs = [layer(s.rows(), c), form.parameters.clone()].concat();
    let dropped = AttentionDropout { relation: DROPPED, ..AttentionDropout::default() };
    let half = |x: &[Tensor]| self_attention_of(x, 3, (form.relation)(x));
    check(
        "two layers",
        &inputs,
        &|x| encoder(&x[0], &s, vec![Half::Attention(half(x), dropped); 2], F32),
        &|x| {
            let once = half(x).in_parts(&x[0], &s, dropped, F32)?;
            half(x).in_parts(&once, &s, dropped, F32)
        },
    );
}

/// A parameter of the relation that needs no gradient gets none, and the others get theirs.
#[test]
fn frozen_parameters_of_a_relation() {
    let (s, c) = (Arc::new(Sequences::packed(&[5, 3], 5).unwrap()), 8);
    for form in forms(c, 2) {
        let inputs = [layer(s.rows(), c), form.parameters.clone()].concat();
        let all: Vec<Tensor> = inputs.iter().map(|v| v.as_tensor().clone()).collect();
        let run = |x: &[Tensor]| {
            let half = self_attention_of(x, 2, (form.relation)(x));
            let halves = vec![Half::Attention(half, AttentionDropout::default())];
            let y = encoder(&x[0], &s, halves, F32).unwrap();
            let mut grads = backward(&y.sqr().unwrap().sum_all().unwrap()).unwrap();
            let of = |v: &Var| grads.remove(v).unwrap().map(|g| flat(&g.to_tensor().unwrap()));
            inputs.iter().map(of).collect::<Vec<_>>()
        };
        let whole = run(&all);
        assert!(whole.iter().all(Option::is_some), "{}", form.name);
        for frozen in 11..inputs.len() {
            let mut some = all.clone();
            some[frozen] = inputs[frozen].as_detached_tensor();
            for (at, (found, expected)) in run(&some).iter().zip(&whole).enumerate() {
                match at == frozen {
                    true => assert!(found.is_none(), "{} {at}", form.name),
                    false => assert!(found == expected, "{} {at} with {frozen}", form.name),
                }
            }
        }
    }
}

/// Central differences in f64 through the slow twins: the gradients are the functions' own.
#[test]
fn gradients_equal_central_differences() {
    let s = Sequences::packed(&[4, 2], 4).unwrap();
    let bias = |x: &[Tensor]| {
        let bias = RelativeBias { table: x[3].clone(), buckets: BOTH_SIDES };
        composed::attention_with_bias(&x[0], &x[1], &x[2], &s, 2, &bias, DROPPED)
    };
    let buckets = Buckets::Centred { span: 4, farthest: Some(8) };
    let both = |x: &[Tensor]| {
        let terms = [Some(&x[3]), Some(&x[4])];
        composed::disentangled_attention(&x[0], &x[1], &x[2], &s, 2, terms, buckets, DROPPED)
    };
    let qkv = vec![vec![6, 4]; 3];
    let cases: [(&str, Vec<Vec<usize>>, twin::Op); 2] = [
        ("bias", [qkv.clone(), vec![vec![32, 2]]].concat(), &bias),
        ("disentangled", [qkv, vec![vec![8, 4]; 2]].concat(), &both),
    ];
    for (name, shapes, op) in cases {
        check_differences(name, &shapes, 1e-7, op);
    }
}

/// What a distance's row is doesn't depend on the batch: a text alone gets what it gets beside a longer one.
#[test]
fn a_longer_neighbour_changes_nothing() {
    let c = 24;
    for form in forms(c, 3) {
        let inputs = [layer(16, c), form.parameters.clone()].concat();
        let all: Vec<Tensor> = inputs.iter().map(|v| v.as_tensor().clone()).collect();
        let of = |x: Tensor, lengths: &[u32]| {
            let t = *lengths.iter().max().unwrap() as usize;
            let s = Arc::new(Sequences::packed(lengths, t).unwrap());
            let half = self_attention_of(&all, 3, (form.relation)(&all));
            encoder(&x, &s, vec![Half::Attention(half, AttentionDropout::default())], F32).unwrap()
        };
        let both = of(all[0].clone(), &[4, 12]).narrow(0, 0, 4).unwrap();
        let alone = of(all[0].narrow(0, 0, 4).unwrap(), &[4]);
        assert!(difference(&both, &alone) < 1e-6, "{}", form.name);
    }
}

#[test]
fn relations_that_do_not_fit_are_refused() {
    let (s, c) = (Arc::new(Sequences::packed(&[3], 3).unwrap()), 8);
    let x: Vec<Tensor> = layer(3, c).iter().map(|v| v.as_tensor().clone()).collect();
    let check = |relation: Relation, expected: &str| {
        let half = self_attention_of(&x, 2, relation);
        let halves = vec![Half::Attention(half, AttentionDropout::default())];
        let error = encoder(&x[0], &s, halves, F32).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let bias = |shape: &[usize], buckets| {
        Relation::Bias(RelativeBias { table: var(shape, 1).as_tensor().clone(), buckets })
    };
    check(bias(&[32, 3], BOTH_SIDES), "a table [32, 3] for 2 columns");
    check(bias(&[30, 2], BOTH_SIDES), "a table [30, 2] for 2 columns");
    check(bias(&[2, 2], Buckets::BothSides { rows: 2, farthest: 9 }), "buckets of distances");
    let terms = |rows: usize, o: usize| {
        let key = Affine {
            weight: var(&[o, c], 2).as_tensor().clone(),
            bias: var(&[o], 3).as_tensor().clone(),
        };
        let table = var(&[rows, c], 1).as_tensor().clone();
        let buckets = LOGARITHMIC;
        Relation::Disentangled(Disentangled {
            table,
            norm: None,
            key: Some(key),
            query: None,
            buckets,
        })
    };
    check(terms(15, c), "a table [15, 8] for 8 columns");
    check(terms(16, 7), "8 channels through [7, 8]");
}

/// Rows of tests/golden/relative.csv, which transformers' own functions made.
#[test]
fn rows_are_those_of_pytorch() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/relative.csv");
    let text = std::fs::read_to_string(path).unwrap();
    let mut n_settings = 0;
    for line in text.lines().skip(1) {
        let (setting, rows) = line.split_once(':').unwrap();
        let setting: Vec<&str> = setting.split(',').collect();
        let number = |at: usize| setting[at].parse::<usize>().unwrap();
        let buckets = match setting[0] {
            "mpnet" => Buckets::BothSides { rows: number(1), farthest: number(2) },
            "deberta" if setting[2] == "-1" => Buckets::Centred { span: number(1), farthest: None },
            _ => Buckets::Centred { span: number(1), farthest: Some(number(2)) },
        };
        let rows: Vec<usize> = rows.split(',').map(|row| row.parse().unwrap()).collect();
        let most = rows.len() as i64 / 2;
        for (distance, expected) in (-most..=most).zip(rows) {
            assert_eq!(buckets.row(distance), expected, "{buckets:?} of {distance}");
        }
        n_settings += 1;
    }
    assert_eq!(n_settings, 7);
}
