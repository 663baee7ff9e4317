//! AdamW by rows, put off and replayed, gives the bytes of the update of the whole table: parameters and both moments, for
//! any batches, schedule, clip, decay and moments of settling, and any number of threads.

use std::collections::BTreeSet;

use candle_core::{Device, Tensor, Var};
use lowchurn_kernels::{
    AdamW, Gradient, Moments, Rows, adamw, adamw_rows, backward, catch_up, embedding, settle,
};
use proptest::prelude::*;

/// Parameter and moments as bits.
type Bits = [Vec<u32>; 3];

struct Table {
    param: Var,
    moments: Moments,
}

impl Table {
    fn new(v: usize, c: usize) -> Table {
        let numbers: Vec<f32> = (0..v * c).map(|i| (i as f32 * 0.7).sin() * 0.05).collect();
        let param = Var::from_vec(numbers, (v, c), &Device::Cpu).unwrap();
        let moments = Moments::zeros(&param).unwrap();
        Table { param, moments }
    }

    fn bits(&self) -> Bits {
        let Moments::Host { m, v, .. } = &self.moments else { panic!("not on the host") };
        let param = self.param.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        [&param, m, v].map(|x| x.iter().map(|x| x.to_bits()).collect())
    }

    /// As a checkpoint would: values only.
    fn saved_and_loaded(self) -> Table {
        let param = Var::from_tensor(&self.param.copy().unwrap()).unwrap();
        let Moments::Host { m, v, missed } = self.moments else { panic!("not on the host") };
        assert!(missed.is_none());
        Table { param, moments: Moments::Host { m, v, missed: Default::default() } }
    }
}

/// The gradient of a loss that reads these rows.
fn gradient(param: &Var, ids: &[u32], seed: u32) -> Rows {
    let read = embedding(param, &Tensor::new(ids, &Device::Cpu).unwrap()).unwrap();
    let factors: Vec<f32> = (0..read.elem_count() as u32)
        .map(|i| {
            let x = i.wrapping_add(seed.wrapping_mul(977)).wrapping_mul(0x9E37_79B9) >> 8;
            (x as f32 / 2f32.powi(24) - 0.5) * 10f32.powi(-((x % 9) as i32)) // of many sizes
        })
        .collect();
    let factors = Tensor::from_vec(factors, read.shape(), &Device::Cpu).unwrap();
    let loss = (read * factors).unwrap().sum_all().unwrap();
    match backward(&loss).unwrap().remove(param).unwrap().unwrap() {
        Gradient::Rows(rows) => rows,
        _ => panic!("not in rows"),
    }
}

/// What happens after an update.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Nothing,
    Settle,
    SaveAndLoad,
    /// The next gradient is whole.
    Whole,
}

/// Ids of each update, and what follows it.
fn updates(v: u32, most: usize) -> impl Strategy<Value = Vec<(Vec<u32>, Then)>> {
    let then = prop_oneof![
        40 => Just(Then::Nothing),
        2 => Just(Then::Settle),
        1 => Just(Then::SaveAndLoad),
        1 => Just(Then::Whole),
    ];
    // The product of two: some ids often, others hardly ever.
    let id = (0..v, 0..v).prop_map(move |(a, b)| a * b / v);
    prop::collection::vec((prop::collection::vec(id, 0..6), then), 1..most)
}

fn update_at(step: usize, total: usize, rate: f64, weight_decay: f64) -> AdamW {
    let done = step as f64 / total as f64;
    AdamW {
        // Warm-up from zero, then down to zero.
        learning_rate: rate * if done < 0.1 { done / 0.1 } else { (1.0 - done) / 0.9 },
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay,
        step: step as u64 + 1,
        gradient_scale: if step.is_multiple_of(3) { 1.0 } else { 1.0 / (step as f64) },
    }
}

/// The two ways through the same updates. The rows that a batch reads are compared each time, the rest at the end.
fn run(
    (v, c): (usize, usize),
    (rate, weight_decay): (f64, f64),
    updates: &[(Vec<u32>, Then)],
) -> (Bits, Bits) {
    let (mut fast, mut slow) = (Table::new(v, c), Table::new(v, c));
    let mut is_whole = false;
    for (step, (ids, then)) in updates.iter().enumerate() {
        let update = update_at(step, updates.len(), rate, weight_decay);
        catch_up(&fast.param, &mut fast.moments, ids).unwrap();
        let (now, whole) = (fast.bits(), slow.bits());
        for &id in ids {
            let row = id as usize * c..(id as usize + 1) * c;
            for (now, whole) in now.iter().zip(&whole) {
                assert_eq!(now[row.clone()], whole[row.clone()], "row {id} before update {step}");
            }
        }
        let grad = gradient(&slow.param, ids, step as u32);
        let dense = grad.to_tensor().unwrap();
        adamw(&slow.param, &dense, &mut slow.moments, &update).unwrap();
        match is_whole {
            true => adamw(&fast.param, &dense, &mut fast.moments, &update).unwrap(),
            false => adamw_rows(&fast.param, &grad, &mut fast.moments, &update).unwrap(),
        }
        is_whole = *then == Then::Whole;
        if matches!(then, Then::Settle | Then::SaveAndLoad) {
            settle(&fast.param, &mut fast.moments).unwrap();
            assert_eq!(fast.bits(), slow.bits(), "settled after update {step}");
        }
        if *then == Then::SaveAndLoad {
            fast = fast.saved_and_loaded();
        }
    }
    settle(&fast.param, &mut fast.moments).unwrap();
    (fast.bits(), slow.bits())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn put_off_it_is_the_update_of_the_whole_table(
        updates in updates(23, 400),
        // With the small ones most updates are too little to move a parameter.
        rate in prop::sample::select(vec![1e-2, 2e-5, 1e-8, 1e-10]),
        weight_decay in prop::sample::select(vec![0.0, 0.01]),
        c in prop::sample::select(vec![1usize, 16, 21, 48]),
    ) {
        let (fast, slow) = run((23, c), (rate, weight_decay), &updates);
        prop_assert_eq!(&fast, &slow);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (again, _) = pool.install(|| run((23, c), (rate, weight_decay), &updates));
            prop_assert_eq!(&again, &fast, "{} threads", threads);
        }
    }
}

/// More updates than are ever put off, and so many without a gradient that the first moments leave the normal numbers.
#[test]
fn a_row_that_waits_for_a_thousand_updates() {
    for weight_decay in [0.0, 0.1] {
        let ids = |step| if step == 0 { vec![1, 4, 6] } else { vec![step as u32 % 3] };
        let updates: Vec<_> = (0..1500).map(|step| (ids(step), Then::Nothing)).collect();
        let (fast, slow) = run((8, 20), (0.01, weight_decay), &updates);
        assert_eq!(fast, slow);
        let [_, m, _] = fast;
        assert!(m[4 * 20..5 * 20].iter().all(|&bits| bits == 0), "not long enough");
    }
}

/// What isn't read keeps its bytes until it is settled; what is read without having caught up is refused.
#[test]
fn rows_wait_and_are_not_forgotten() {
    let mut table = Table::new(6, 4);
    let update = |step| update_at(step, 10, 0.01, 0.5);
    let go = |table: &mut Table, ids: &[u32], step| {
        let grad = gradient(&table.param, ids, 1);
        adamw_rows(&table.param, &grad, &mut table.moments, &update(step))
    };
    let before = table.bits();
    go(&mut table, &[2, 5], 1).unwrap();
    let moved = |table: &Table| -> BTreeSet<usize> {
        let [now, ..] = table.bits();
        (0..24).filter(|&i| now[i] != before[0][i]).map(|i| i / 4).collect()
    };
    assert_eq!(moved(&table), BTreeSet::from([2, 5]));
    let error = go(&mut table, &[2, 3], 2).unwrap_err().to_string();
    assert!(error.contains("row 3 has a gradient, but not all updates from before"), "{error}");
    catch_up(&table.param, &mut table.moments, &[3, 2, 3]).unwrap();
    assert_eq!(moved(&table), BTreeSet::from([2, 3, 5]));
    go(&mut table, &[2, 3], 2).unwrap();
    let error = catch_up(&table.param, &mut table.moments, &[6]).unwrap_err().to_string();
    assert!(error.contains("row 6 of a table of 6 rows"), "{error}");
    settle(&table.param, &mut table.moments).unwrap();
    assert_eq!(moved(&table).len(), 6);

    let grad = gradient(&Table::new(6, 5).param, &[0], 1);
    let error = adamw_rows(&table.param, &grad, &mut table.moments, &update(3)).unwrap_err();
    assert!(error.to_string().contains("parameter [6, 4] and gradient (6, 5)"), "{error}");
}
