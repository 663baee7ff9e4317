//! Halves of encoder blocks with the norm in front – rotary positions, windows, gates, no biases – and pooling by the mean: each
//! equals its slow twin, values and gradients, in both layouts of the texts, and gives the same bytes for any number of threads.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, Var};
use lowchurn_kernels::{
    Activation, AttentionDropout, Dropout, GatedFeedForward, Gelu, Half, PreNorm, Precision, Reach,
    Rotary, RotaryAttention, Sequences, attention, attention_in_window, backward, composed,
    encoder, mean_of_texts, rotary,
};

mod differences;
mod twin;
use differences::check_differences;
use twin::{check, difference, flat, var};

const F32: Precision = Precision::F32;
const DROPPED: Option<Dropout> = Some(Dropout { p: 0.2, key: 77 });
const TEXTS: [(&[u32], usize); 4] =
    [(&[1], 1), (&[5, 3, 1], 5), (&[13, 13, 9, 2], 13), (&[150, 33, 70], 150)];

fn layouts(lengths: &[u32], t: usize) -> [Arc<Sequences>; 2] {
    [
        Arc::new(Sequences::packed(lengths, t).unwrap()),
        Arc::new(Sequences::padded(lengths, t).unwrap()),
    ]
}

/// 1 on rows of tokens and 0 on rows of padding, (N, 1): what stands in padding is nobody's business.
fn tokens(s: &Sequences) -> Tensor {
    let is_token = |place: &u32| {
        let (text, token) = (*place as usize / s.width(), *place as usize % s.width());
        f32::from(u8::from(token < s.lengths()[text] as usize))
    };
    let flat: Vec<f32> = s.places().iter().map(is_token).collect();
    Tensor::from_vec(flat, (s.rows(), 1), &Device::Cpu).unwrap()
}

/// Weights as small as trained ones, so that sums stay of order one.
fn scaled(shape: &[usize], seed: u32) -> Var {
    let scale = 1.0 / (shape[shape.len() - 1] as f64).sqrt();
    Var::from_tensor(&(var(shape, seed).as_tensor() * scale).unwrap()).unwrap()
}

#[test]
fn attention_in_a_window_equals_its_twin() {
    for ((lengths, t), (c, heads)) in TEXTS.into_iter().zip([(4, 1), (8, 2), (96, 3), (64, 2)]) {
        for s in &layouts(lengths, t) {
            for (reach, dropped) in [(0, None), (1, DROPPED), (4, None), (40, DROPPED), (64, None)]
            {
                let (shape, mask) = ([s.rows(), c], tokens(s));
                check(
                    &format!("window of {reach} {shape:?} {heads} heads {dropped:?}"),
                    &[var(&shape, 1), var(&shape, 2), var(&shape, 3)],
                    &|x| {
                        attention_in_window(&x[0], &x[1], &x[2], s, heads, reach, dropped)?
                            .broadcast_mul(&mask)
                    },
                    &|x| {
                        composed::attention_in_window(
                            &x[0], &x[1], &x[2], s, heads, reach, dropped,
                        )?
                        .broadcast_mul(&mask)
                    },
                );
            }
        }
    }
}

#[test]
fn a_window_as_long_as_the_text_is_all_of_it() {
    let s = Arc::new(Sequences::packed(&[150, 20], 150).unwrap());
    let [q, k, v] = [1, 2, 3].map(|seed| var(&[170, 16], seed));
    let all = attention(&q, &k, &v, &s, 2, DROPPED).unwrap();
    for reach in [149, usize::MAX] {
        let window = attention_in_window(&q, &k, &v, &s, 2, reach, DROPPED).unwrap();
        assert!(difference(&window, &all) < 1e-6, "{reach}");
    }
    let narrow = attention_in_window(&q, &k, &v, &s, 2, 20, DROPPED).unwrap();
    assert!(difference(&narrow, &all) > 1e-2);
}

/// Token 100 hears of token 90 with a reach of 10, and not of token 89.
#[test]
fn nothing_beyond_the_window_is_heard() {
    let s = Arc::new(Sequences::packed(&[150], 150).unwrap());
    let [q, k, v] = [1, 2, 3].map(|seed| var(&[150, 16], seed));
    let heard = |changed: usize| {
        let mut other = flat(&v);
        other[changed * 16] += 5.0;
        let other = Tensor::from_vec(other, (150, 16), &Device::Cpu).unwrap();
        let of = |v: &Tensor| {
            flat(&attention_in_window(&q, &k, v, &s, 2, 10, None).unwrap().get(100).unwrap())
        };
        of(&other) != of(&v)
    };
    assert!(heard(90) && heard(110) && !heard(89) && !heard(111));
}

#[test]
fn rotary_equals_its_twin() {
    for ((lengths, t), (c, d)) in TEXTS.into_iter().zip([(2, 2), (8, 4), (96, 32), (60, 20)]) {
        let angles = Arc::new(Rotary::new(10_000.0, d, t + 3).unwrap());
        for s in layouts(lengths, t) {
            check(
                &format!("rotary {} {c} {d}", s.rows()),
                &[var(&[s.rows(), c], 1)],
                &|x| rotary(&x[0], &s, &angles),
                &|x| composed::rotary(&x[0], &s, &angles),
            );
        }
    }
}

#[test]
fn the_mean_of_texts_equals_its_twin() {
    for (lengths, t) in TEXTS {
        for s in layouts(lengths, t) {
            check(
                "mean of texts",
                &[var(&[s.rows(), 24], 1)],
                &|x| mean_of_texts(&x[0], &s),
                &|x| composed::mean_of_texts(&x[0], &s),
            );
        }
    }
}

/// x (N, C), the weights of a gated half, and those of an attention half.
fn inputs(n: usize, c: usize, f: usize) -> Vec<Var> {
    vec![
        var(&[n, c], 1),
        var(&[c], 2),
        scaled(&[2 * f, c], 3),
        scaled(&[c, f], 4),
        var(&[c], 5),
        scaled(&[3 * c, c], 6),
        scaled(&[c, c], 7),
    ]
}

fn norm_of(weight: &Tensor) -> PreNorm {
    PreNorm { weight: weight.clone(), eps: 1e-5 }
}

/// From three tensors: norm, inner, outer.
fn gated_of(x: &[Tensor], activation: Activation) -> GatedFeedForward {
    GatedFeedForward { norm: norm_of(&x[0]), inner: x[1].clone(), outer: x[2].clone(), activation }
}

/// From three tensors: norm, together, output. The first layer's half has no norm.
fn attention_of(x: &[Tensor], reach: Reach, t: usize, is_first: bool) -> RotaryAttention {
    let (c, heads) = (x[0].dim(0).unwrap(), 3);
    RotaryAttention {
        norm: (!is_first).then(|| norm_of(&x[0])),
        together: x[1].clone(),
        output: x[2].clone(),
        heads,
        reach,
        angles: Arc::new(Rotary::new(10_000.0, c / heads, t).unwrap()),
    }
}

#[test]
fn gated_feed_forward_equals_its_twin() {
    let activations = [Activation::Gelu(Gelu::Erf), Activation::Gelu(Gelu::Tanh), Activation::Relu];
    for (activation, (lengths, t)) in activations.into_iter().cycle().zip(TEXTS) {
        for (s, dropped) in layouts(lengths, t).iter().flat_map(|s| [(s, None), (s, DROPPED)]) {
            let inputs = &inputs(s.rows(), 24, 40)[..4];
            for precision in [F32, Precision::Bf16] {
                check(
                    &format!("gated {} {activation:?} {dropped:?} {precision:?}", s.rows()),
                    inputs,
                    &|x| {
                        let half = Half::GatedFeedForward(gated_of(&x[1..], activation), dropped);
                        encoder(&x[0], s, vec![half], precision)
                    },
                    &|x| gated_of(&x[1..], activation).in_parts(&x[0], s, dropped, precision),
                );
            }
        }
    }
}

#[test]
fn rotary_attention_equals_its_twin() {
    for (lengths, t) in TEXTS {
        for (s, dropped) in layouts(lengths, t).iter().flat_map(|s| [(s, None), (s, DROPPED)]) {
            let output = dropped.map(|d| Dropout { key: 5, ..d });
            let dropped = AttentionDropout { probabilities: dropped, output, relation: None };
            let mask = tokens(s);
            let cases = [(Reach::All, F32), (Reach::Within(3), F32), (Reach::All, Precision::Bf16)];
            for (is_first, (reach, precision)) in
                [false, true].into_iter().flat_map(|first| cases.map(|case| (first, case)))
            {
                let mut inputs = inputs(s.rows(), 24, 40);
                inputs.drain(1..if is_first { 5 } else { 4 });
                let half = |x: &[Tensor]| match is_first {
                    true => {
                        let unused = Tensor::ones(24, DType::F32, &Device::Cpu).unwrap();
                        let all = [unused, x[1].clone(), x[2].clone()];
                        attention_of(&all, reach, t, true)
                    }
                    false => attention_of(&x[1..], reach, t, false),
                };
                check(
                    &format!("rotary attention {} {reach:?} {dropped:?} {precision:?}", s.rows()),
                    &inputs,
                    &|x| {
                        let half = Half::RotaryAttention(half(x), dropped);
                        encoder(&x[0], s, vec![half], precision)?.broadcast_mul(&mask)
                    },
                    &|x| half(x).in_parts(&x[0], s, dropped, precision)?.broadcast_mul(&mask),
                );
            }
        }
    }
}

/// Two blocks in one operation are the same as their halves one after the other; whatever is frozen gets nothing, and the rest
/// what it gets when all is trained.
#[test]
fn an_encoder_is_its_halves_in_order() {
    let (s, c, f) = (Arc::new(Sequences::packed(&[9, 3, 1], 9).unwrap()), 24, 40);
    let mut all = vec![var(&[s.rows(), c], 1)];
    for block in 1..3 {
        let mut of_block = inputs(1, c, f);
        all.extend(of_block.drain(4..));
        all.extend(of_block.drain(1..));
        for at in all.len() - 6..all.len() {
            let other = (all[at].as_tensor() * (0.5 + 0.4 * f64::from(block))).unwrap();
            all[at] = Var::from_tensor(&other).unwrap();
        }
    }
    let gelu = Activation::Gelu(Gelu::Erf);
    let dropped = AttentionDropout { probabilities: DROPPED, output: DROPPED, relation: None };
    let halves = |x: &[Tensor]| -> Vec<Half> {
        let of_block = |x: &[Tensor], reach| {
            let attention = attention_of(x, reach, 9, false);
            [
                Half::RotaryAttention(attention, dropped),
                Half::GatedFeedForward(gated_of(&x[3..], gelu), DROPPED),
            ]
        };
        [of_block(&x[1..], Reach::All), of_block(&x[7..], Reach::Within(2))].concat()
    };
    let in_order = |x: &[Tensor]| {
        halves(x).into_iter().try_fold(x[0].clone(), |y, half| half.in_parts(&y, &s, F32))
    };
    check("encoder", &all, &|x| encoder(&x[0], &s, halves(x), F32), &in_order);

    let run = |x: &[Tensor]| {
        let y = encoder(&x[0], &s, halves(x), F32).unwrap();
        let mut grads = backward(&y.sqr().unwrap().sum_all().unwrap()).unwrap();
        let of = |input: &Var| grads.remove(input).unwrap().map(|g| flat(&g.to_tensor().unwrap()));
        all.iter().map(of).collect::<Vec<_>>()
    };
    let tensors: Vec<Tensor> = all.iter().map(|v| v.as_tensor().clone()).collect();
    let whole = run(&tensors);
    assert!(whole.iter().all(Option::is_some));
    // One parameter frozen, all but one frozen, and all below the second block frozen.
    let n = all.len();
    let mut cases: Vec<Vec<usize>> = (0..n).map(|frozen| vec![frozen]).collect();
    cases.extend((0..n).map(|trained| (0..n).filter(|&at| at != trained).collect()));
    cases.push((0..7).collect());
    for frozen in cases {
        let mut some = tensors.clone();
        for &at in &frozen {
            some[at] = all[at].as_detached_tensor();
        }
        for (at, (found, expected)) in run(&some).iter().zip(&whole).enumerate() {
            match frozen.contains(&at) {
                true => assert!(found.is_none(), "{at} of {frozen:?}"),
                false => assert!(found == expected, "{at} with {frozen:?} frozen"),
            }
        }
    }
}

/// The slow twins themselves, in f64 against finite differences.
#[test]
fn twins_have_the_gradients_of_finite_differences() {
    let s = Arc::new(Sequences::packed(&[5, 2], 5).unwrap());
    let angles = Arc::new(Rotary::new(100.0, 4, 5).unwrap());
    let gelu = Activation::Gelu(Gelu::Erf);
    let dropped = AttentionDropout { probabilities: DROPPED, output: DROPPED, relation: None };
    type Case<'a> =
        (&'a str, Vec<Vec<usize>>, Box<dyn Fn(&[Tensor]) -> Result<Tensor> + Sync + 'a>);
    let cases: [Case; 5] = [
        ("rotary", vec![vec![7, 8]], Box::new(|x| composed::rotary(&x[0], &s, &angles))),
        (
            "window",
            vec![vec![7, 8]; 3],
            Box::new(|x| composed::attention_in_window(&x[0], &x[1], &x[2], &s, 2, 1, DROPPED)),
        ),
        ("mean", vec![vec![7, 8]], Box::new(|x| composed::mean_of_texts(&x[0], &s))),
        (
            "gated feed forward",
            vec![vec![7, 6], vec![6], vec![10, 6], vec![6, 5]],
            Box::new(|x| gated_of(&x[1..], gelu).in_parts(&x[0], &s, DROPPED, F32)),
        ),
        (
            "rotary attention",
            vec![vec![7, 12], vec![12], vec![36, 12], vec![12, 12]],
            Box::new(|x| {
                attention_of(&x[1..], Reach::Within(1), 5, false).in_parts(&x[0], &s, dropped, F32)
            }),
        ),
    ];
    for (name, shapes, op) in cases {
        // candle's own GELU backward carries six digits, hence no tighter.
        check_differences(name, &shapes, 3e-6, &*op);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let s = Arc::new(Sequences::packed(&[5, 2], 5).unwrap());
    let x: Vec<Tensor> = inputs(7, 24, 40).iter().map(|v| v.as_tensor().clone()).collect();
    let refused = |half: Half, message: &str| {
        let error = encoder(&x[0], &s, vec![half], F32).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    };
    let attention = attention_of(&x[4..], Reach::All, 5, false);
    let none = AttentionDropout::default();
    let of_4_heads = RotaryAttention { heads: 4, ..attention.clone() };
    refused(
        Half::RotaryAttention(of_4_heads, none),
        "24 channels in 4 heads, angles of heads of 8",
    );
    let short = attention_of(&x[4..], Reach::All, 4, false);
    refused(Half::RotaryAttention(short, none), "24 channels and 5 places");
    let swapped = RotaryAttention { together: x[6].clone(), ..attention };
    refused(Half::RotaryAttention(swapped, none), "24 channels through [24, 24] and [24, 24]");
    let gated = gated_of(&x[1..], Activation::Relu);
    let narrow = GatedFeedForward { inner: x[6].clone(), ..gated.clone() };
    refused(Half::GatedFeedForward(narrow, None), "24 channels through (24, 24) and (24, 40)");
    let no_norm = GatedFeedForward { norm: norm_of(&x[3]), ..gated };
    refused(Half::GatedFeedForward(no_norm, None), "24 channels and a norm of [24, 40]");
}
