//! What works on the texts of a batch – attention, dropout of token rows, the two halves of an encoder block – equals its slow
//! twin, values and gradients, in both layouts of the texts, and gives the same bytes for one thread and for several.

use std::sync::Arc;

use candle_core::{Device, Tensor, Var};
use lowchurn_kernels::{
    Activation, Affine, AttentionDropout, Dropout, FeedForward, Gelu, Gradients, Half, Precision,
    Relation, SelfAttention, Sequences, attention, backward, backward_keeping, composed,
    dropout_rows, encoder, encoder_of_first_rows,
};

mod twin;
use twin::{check, check_at_one_scale, check_but, difference, flat, var};

const F32: Precision = Precision::F32;

/// Both layouts of some texts.
fn layouts(lengths: &[u32], t: usize) -> [Arc<Sequences>; 2] {
    [
        Arc::new(Sequences::packed(lengths, t).unwrap()),
        Arc::new(Sequences::padded(lengths, t).unwrap()),
    ]
}

fn is_token(s: &Sequences, place: u32) -> bool {
    (place as usize % s.width()) < s.lengths()[place as usize / s.width()] as usize
}

/// 1 on rows of tokens and 0 on rows of padding, (N, 1): what stands in padding is nobody's business.
fn tokens(s: &Sequences) -> Tensor {
    let flat: Vec<f32> =
        s.places().iter().map(|&place| f32::from(u8::from(is_token(s, place)))).collect();
    Tensor::from_vec(flat, (s.rows(), 1), &Device::Cpu).unwrap()
}

const TEXTS: [(&[u32], usize); 4] =
    [(&[1], 1), (&[5, 3, 1], 5), (&[13, 13, 9, 2], 13), (&[70, 33], 70)];
const DROPPED: Option<Dropout> = Some(Dropout { p: 0.2, key: 77 });

#[test]
fn attention_equals_its_twin() {
    for ((lengths, t), (c, heads)) in TEXTS.into_iter().zip([(4, 1), (8, 2), (96, 3), (64, 2)]) {
        for (s, dropped) in layouts(lengths, t).iter().flat_map(|s| [(s, None), (s, DROPPED)]) {
            let shape = [s.rows(), c];
            let mask = tokens(s);
            check(
                &format!("attention {shape:?} {heads} heads {dropped:?}"),
                &[var(&shape, 1), var(&shape, 2), var(&shape, 3)],
                &|x| attention(&x[0], &x[1], &x[2], s, heads, dropped)?.broadcast_mul(&mask),
                &|x| {
                    composed::attention(&x[0], &x[1], &x[2], s, heads, dropped)?
                        .broadcast_mul(&mask)
                },
            );
        }
    }
}

#[test]
fn dropout_of_rows_equals_its_twin() {
    for (lengths, t) in TEXTS {
        for s in layouts(lengths, t) {
            check(
                "dropout of rows",
                &[var(&[s.rows(), 24], 1)],
                &|x| dropout_rows(&x[0], &s, DROPPED),
                &|x| composed::dropout_rows(&x[0], &s, DROPPED.unwrap()),
            );
        }
    }
}

fn affine(x: &[Tensor], at: usize) -> Affine {
    Affine { weight: x[at].clone(), bias: x[at + 1].clone() }
}

/// Weights as small as trained ones, so that sums stay of order one.
fn scaled(shape: &[usize], seed: u32) -> Var {
    let scale = 1.0 / (shape[shape.len() - 1] as f64).sqrt();
    Var::from_tensor(&(var(shape, seed).as_tensor() * scale).unwrap()).unwrap()
}

fn feed_forward_of(x: &[Tensor], activation: Activation) -> FeedForward {
    FeedForward {
        inner: affine(x, 1),
        outer: affine(x, 3),
        norm: affine(x, 5),
        eps: 1e-5,
        activation,
    }
}

/// x (N, C) and the parameters of a feed-forward half.
fn feed_forward_inputs(n: usize, c: usize, f: usize) -> [Var; 7] {
    [
        var(&[n, c], 1),
        scaled(&[f, c], 2),
        var(&[f], 3),
        scaled(&[c, f], 4),
        var(&[c], 5),
        var(&[c], 6),
        var(&[c], 7),
    ]
}

#[test]
fn feed_forward_equals_its_twin() {
    let activations = [Activation::Gelu(Gelu::Erf), Activation::Gelu(Gelu::Tanh), Activation::Relu];
    for (activation, (lengths, t)) in activations.into_iter().cycle().zip(TEXTS) {
        for (s, dropped) in layouts(lengths, t).iter().flat_map(|s| [(s, None), (s, DROPPED)]) {
            let inputs = feed_forward_inputs(s.rows(), 24, 56);
            for precision in [F32, Precision::Bf16] {
                check(
                    &format!("feed forward {} {activation:?} {dropped:?} {precision:?}", s.rows()),
                    &inputs,
                    &|x| {
                        encoder(
                            &x[0],
                            s,
                            vec![Half::FeedForward(feed_forward_of(x, activation), dropped)],
                            precision,
                        )
                    },
                    &|x| feed_forward_of(x, activation).in_parts(&x[0], s, dropped, precision),
                );
            }
        }
    }
}

fn self_attention_of(x: &[Tensor], heads: usize) -> SelfAttention {
    let [query, key, value, output, norm] = [1, 3, 5, 7, 9].map(|at| affine(x, at));
    let relation = Relation::None;
    SelfAttention { query, key, value, output, norm, eps: 1e-5, heads, relation }
}

#[test]
fn self_attention_equals_its_twin() {
    for (lengths, t) in TEXTS {
        for (s, dropped) in layouts(lengths, t).iter().flat_map(|s| [(s, None), (s, DROPPED)]) {
            let (n, c) = (s.rows(), 24);
            let mut inputs = vec![var(&[n, c], 1)];
            for seed in 0..4 {
                inputs.extend([scaled(&[c, c], 10 + seed), var(&[c], 20 + seed)]);
            }
            inputs.extend([var(&[c], 30), var(&[c], 31)]);
            let mask = tokens(s);
            let output = dropped.map(|d| Dropout { key: 5, ..d });
            let dropped = AttentionDropout { probabilities: dropped, output, relation: None };
            for precision in [F32, Precision::Bf16] {
                check(
                    &format!("self attention {n} {dropped:?} {precision:?}"),
                    &inputs,
                    &|x| {
                        encoder(
                            &x[0],
                            s,
                            vec![Half::Attention(self_attention_of(x, 3), dropped)],
                            precision,
                        )?
                        .broadcast_mul(&mask)
                    },
                    &|x| {
                        self_attention_of(x, 3)
                            .in_parts(&x[0], s, dropped, precision)?
                            .broadcast_mul(&mask)
                    },
                );
            }
        }
    }
}

/// The parameters of a block, 16 of them.
fn block_inputs(seed: u32, c: usize, f: usize) -> Vec<Var> {
    let mut inputs = Vec::new();
    for at in 0..4 {
        inputs.extend([scaled(&[c, c], seed + at), var(&[c], seed + 10 + at)]);
    }
    inputs.extend([var(&[c], seed + 20), var(&[c], seed + 21)]);
    inputs.extend([scaled(&[f, c], seed + 22), var(&[f], seed + 23)]);
    inputs.extend([scaled(&[c, f], seed + 24), var(&[c], seed + 25)]);
    inputs.extend([var(&[c], seed + 26), var(&[c], seed + 27)]);
    inputs
}

/// Two blocks in one operation are the same as their halves one after the other, and what lies below the lowest trained
/// half gets nothing.
#[test]
fn an_encoder_is_its_halves_in_order() {
    let (s, c, f) = (Arc::new(Sequences::packed(&[5, 3, 1], 5).unwrap()), 24, 40);
    let mut inputs = vec![var(&[s.rows(), c], 1)];
    inputs.extend([0, 40].into_iter().flat_map(|seed| block_inputs(seed, c, f)));
    let gelu = Activation::Gelu(Gelu::Erf);
    let halves = |x: &[Tensor]| -> Vec<Half> {
        let dropped = AttentionDropout { probabilities: DROPPED, output: DROPPED, relation: None };
        let of_block = |x: &[Tensor]| {
            let attention = Half::Attention(self_attention_of(x, 3), dropped);
            [attention, Half::FeedForward(feed_forward_of(&x[10..], gelu), DROPPED)]
        };
        [of_block(x), of_block(&x[16..])].concat()
    };
    let in_order = |x: &[Tensor]| {
        halves(x).into_iter().try_fold(x[0].clone(), |y, half| half.in_parts(&y, &s, F32))
    };
    check_but("encoder", &[4, 20], &inputs, &|x| encoder(&x[0], &s, halves(x), F32), &in_order);

    // Only the second block's feed-forward half is trained.
    let mut some: Vec<Tensor> = inputs.iter().map(Var::as_detached_tensor).collect();
    some[27..]
        .clone_from_slice(&inputs[27..].iter().map(|v| v.as_tensor().clone()).collect::<Vec<_>>());
    let mut of_some = backward(
        &encoder(&some[0], &s, halves(&some), F32).unwrap().sqr().unwrap().sum_all().unwrap(),
    )
    .unwrap();
    let all: Vec<Tensor> = inputs.iter().map(|v| v.as_tensor().clone()).collect();
    let mut of_all = backward(
        &encoder(&all[0], &s, halves(&all), F32).unwrap().sqr().unwrap().sum_all().unwrap(),
    )
    .unwrap();
    for (at, input) in inputs.iter().enumerate() {
        let (some, all) = (of_some.remove(input).unwrap(), of_all.remove(input).unwrap().unwrap());
        match some {
            Some(some) => assert!(
                at >= 27 && flat(&some.to_tensor().unwrap()) == flat(&all.to_tensor().unwrap()),
                "{at}"
            ),
            None => assert!(at < 27, "{at}"),
        }
    }
}

/// Where only first rows are asked for, the last block does less, and all else is as if it did everything: values, every
/// gradient, what dropout draws. Of two blocks, of one and a half, of half a block and of none.
#[test]
fn first_rows_are_those_of_the_whole_encoder() {
    let (c, f) = (24, 40);
    for ((lengths, t), dropped) in
        TEXTS.into_iter().flat_map(|text| [(text, None), (text, DROPPED)])
    {
        for s in layouts(lengths, t) {
            let mut inputs = vec![var(&[s.rows(), c], 1)];
            inputs.extend([0, 40].into_iter().flat_map(|seed| block_inputs(seed, c, f)));
            let half_a_block = feed_forward_inputs(s.rows(), c, f);
            let output = dropped.map(|d| Dropout { key: 5, ..d });
            let of_attention = AttentionDropout { probabilities: dropped, output, relation: None };
            let gelu = Activation::Gelu(Gelu::Erf);
            let attention = |x: &[Tensor]| Half::Attention(self_attention_of(x, 3), of_attention);
            let feed_forward = |x: &[Tensor]| Half::FeedForward(feed_forward_of(x, gelu), dropped);
            let halves = |x: &[Tensor]| match x.len() {
                33 => {
                    let [below, above] = [&x[..17], &x[16..]];
                    let first = [attention(below), feed_forward(&below[10..])];
                    first
                        .into_iter()
                        .chain([attention(above), feed_forward(&above[10..])])
                        .collect()
                }
                27 => vec![attention(x), feed_forward(&x[10..]), attention(&x[16..])],
                7 => vec![feed_forward(x)],
                _ => Vec::new(),
            };
            let cases = [&inputs[..], &inputs[..27], &half_a_block, &inputs[..1]];
            for (inputs, precision) in
                cases.into_iter().flat_map(|inputs| [(inputs, F32), (inputs, Precision::Bf16)])
            {
                check_at_one_scale(
                    &format!(
                        "first rows of {t}, {} inputs, {dropped:?}, {precision:?}",
                        inputs.len()
                    ),
                    inputs,
                    &|x| encoder_of_first_rows(&x[0], &s, halves(x), precision),
                    &|x| {
                        let all = match halves(x) {
                            none if none.is_empty() => x[0].clone(),
                            halves => encoder(&x[0], &s, halves, precision)?,
                        };
                        let first: Vec<u32> =
                            s.starts()[..lengths.len()].iter().map(|&at| at as u32).collect();
                        all.index_select(&Tensor::new(first, &Device::Cpu)?, 0)
                    },
                );
            }
        }
    }
}

/// Tokens get the same from both layouts, dropout included.
#[test]
fn packing_changes_no_token() {
    let (lengths, t, c) = ([13, 5, 9, 2], 13, 24);
    let [packed, padded] = layouts(&lengths, t);
    let inputs = feed_forward_inputs(padded.rows(), c, 56);
    let [x, parameters @ ..] = &inputs;
    let rows = Tensor::new(packed.places(), &Device::Cpu).unwrap();
    let of = |x: Tensor, s: &Arc<Sequences>| {
        let mut all = vec![x];
        all.extend(parameters.iter().map(|v| v.as_tensor().clone()));
        let layer = feed_forward_of(&all, Activation::Gelu(Gelu::Erf));
        let attended = attention(&all[0], &all[0], &all[0], s, 3, DROPPED).unwrap();
        encoder(&attended, s, vec![Half::FeedForward(layer, DROPPED)], F32).unwrap()
    };
    let of_packed = of(x.as_tensor().index_select(&rows, 0).unwrap(), &packed);
    let of_padded = of(x.as_tensor().clone(), &padded).index_select(&rows, 0).unwrap();
    assert!(difference(&of_packed, &of_padded) < 1e-6);
}

/// A parameter that needs no gradient gets none, and the others get theirs.
#[test]
fn frozen_parameters_of_fused_operations() {
    let s = Arc::new(Sequences::packed(&[3, 2], 3).unwrap());
    let inputs = feed_forward_inputs(5, 8, 12);
    let all: Vec<Tensor> = inputs.iter().map(|v| v.as_tensor().clone()).collect();
    let run = |x: &[Tensor]| {
        let layer = feed_forward_of(x, Activation::Gelu(Gelu::Erf));
        let y = encoder(&x[0], &s, vec![Half::FeedForward(layer, None)], F32).unwrap();
        let mut grads = backward(&y.sqr().unwrap().sum_all().unwrap()).unwrap();
        inputs
            .each_ref()
            .map(|input| grads.remove(input).unwrap().map(|grad| flat(&grad.to_tensor().unwrap())))
    };
    let whole = run(&all);
    assert!(whole.iter().all(Option::is_some));
    for frozen in 0..inputs.len() {
        let mut some = all.clone();
        some[frozen] = inputs[frozen].as_detached_tensor();
        for (i, (found, expected)) in run(&some).iter().zip(&whole).enumerate() {
            match i == frozen {
                true => assert!(found.is_none(), "{i}"),
                false => assert!(found == expected, "{i} with {frozen} frozen"),
            }
        }
    }
}

/// Two losses of one forward pass have the gradients, bit by bit, that each has of its own.
#[test]
fn a_pass_that_keeps_what_was_saved_can_be_followed_by_another() {
    let s = Arc::new(Sequences::packed(&[3, 2], 3).unwrap());
    let inputs = feed_forward_inputs(5, 8, 13);
    let all: Vec<Tensor> = inputs.iter().map(|v| v.as_tensor().clone()).collect();
    let of = || {
        let half =
            || Half::FeedForward(feed_forward_of(&all, Activation::Gelu(Gelu::Erf)), DROPPED);
        encoder(&all[0], &s, vec![half(), half()], F32).unwrap()
    };
    let squares = |y: &Tensor| y.sqr().unwrap().sum_all().unwrap();
    let sum = |y: &Tensor| (y * 0.3).unwrap().sum_all().unwrap();
    let numbers = |mut grads: Gradients| {
        inputs
            .each_ref()
            .map(|input| flat(&grads.remove(input).unwrap().unwrap().to_tensor().unwrap()))
    };
    let apart =
        [numbers(backward(&squares(&of())).unwrap()), numbers(backward(&sum(&of())).unwrap())];
    let y = of();
    let together =
        [numbers(backward_keeping(&squares(&y)).unwrap()), numbers(backward(&sum(&y)).unwrap())];
    assert_eq!(together, apart);
    assert_ne!(together[0], together[1]);
    let error = backward(&sum(&y)).err().unwrap();
    assert!(error.to_string().contains("a second backward pass over the same graph"), "{error}");
}

/// It would drop the parameters' gradients without a word.
#[test]
fn a_fused_operation_refuses_the_backward_pass_of_candle() {
    let s = Arc::new(Sequences::packed(&[2], 2).unwrap());
    let x = feed_forward_inputs(2, 4, 4).map(|v| v.as_tensor().clone());
    let half = Half::FeedForward(feed_forward_of(&x, Activation::Relu), None);
    let y = encoder(&x[0], &s, vec![half], F32).unwrap();
    let error = y.sum_all().unwrap().backward().unwrap_err();
    assert!(error.to_string().contains("need the backward pass of lowchurn-kernels"), "{error}");
}
