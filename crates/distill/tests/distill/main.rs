//! The crate from outside, on models so small that a whole run takes a fraction of a second. `Toy` is a problem that can
//! be learnt: two classes told apart by one token.

#![expect(clippy::result_large_err, reason = "one error a test at most")]

mod adapters;
mod directions;
mod finish;
mod fisher;
mod golden;
mod gradients;
mod guides;
mod kinds;
mod linear;
mod methods;
mod objectives;
mod refit;
mod refusals;
mod resume;
mod saved;
mod states;
mod table;
mod teacher;
mod trained;
mod variance;
mod weights;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use candle_core::{Device, Tensor};
use lowchurn_data::{Batch, BatchSize, Encoded, Rng, collate};
use lowchurn_distill::{
    Error, Event, Guides, Outcome, Plan, Provenance, Run, SelectBy, State, train,
};
use lowchurn_models::{Classifier, Head, Params};
use tempfile::TempDir;

pub const CPU: Device = Device::Cpu;
/// For what nobody stops.
pub static GO: AtomicBool = AtomicBool::new(false);

/// What PyTorch made; see the README there.
pub fn golden_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

/// The golden model with its own head: 2 layers, hidden 32, vocabulary 100, 16 positions, 3 classes.
pub fn golden_state() -> State {
    let dir = golden_folder().join("bert_tiny");
    State::new(Classifier::open(&dir, Head::FromCheckpoint, &CPU).unwrap().0).unwrap()
}

/// The batch that PyTorch saw, as rows without their padding.
pub fn golden_rows() -> Encoded {
    let path = golden_folder().join("bert_tiny.safetensors");
    let tensors = candle_core::safetensors::load(path, &CPU).unwrap();
    let integers = |name: &str| tensors[name].to_vec2::<i64>().unwrap();
    let (ids, mask, types) =
        (integers("input_ids"), integers("attention_mask"), integers("token_type_ids"));
    let labels = tensors["labels"].to_vec1::<i64>().unwrap();
    let mut rows = Encoded { offsets: vec![0], ..Encoded::default() };
    for row in 0..ids.len() {
        let length = mask[row].iter().sum::<i64>() as usize;
        rows.tokens.extend(ids[row][..length].iter().map(|&id| id as u32));
        rows.types.extend(types[row][..length].iter().map(|&kind| kind as u8));
        rows.offsets.push(rows.tokens.len());
        rows.ids.push(row.to_string());
        rows.labels.push(Some(labels[row] as u32));
    }
    rows
}

/// The golden weights with a new head for the classes "no" and "yes".
pub fn toy_state(seed: u64) -> State {
    let mut rng = Rng::stream(seed, "head", 0);
    let head = Head::Fresh { labels: labels(), normal: &mut || rng.normal() };
    let dir = golden_folder().join("bert_tiny");
    State::new(Classifier::open(&dir, head, &CPU).unwrap().0).unwrap()
}

fn labels() -> Vec<String> {
    vec!["no".into(), "yes".into()]
}

/// Rows of (tokens, label), all of one segment.
pub fn encoded(rows: &[(Vec<u32>, Option<u32>)]) -> Encoded {
    let mut all = Encoded { offsets: vec![0], ..Encoded::default() };
    for (row, (tokens, label)) in rows.iter().enumerate() {
        all.tokens.extend(tokens);
        all.types.extend(tokens.iter().map(|_| 0u8));
        all.offsets.push(all.tokens.len());
        all.ids.push(format!("row-{row}"));
        all.labels.push(*label);
    }
    all
}

/// Rows of 4 to 14 tokens; the token 10 somewhere among others means "no", 11 means "yes".
pub fn toy_rows(n: usize, seed: u64) -> Encoded {
    let mut rng = Rng::stream(seed, "toy", 0);
    let row = |_| {
        let label = rng.below(2) as u32;
        let mut tokens: Vec<u32> =
            (0..4 + rng.below(11)).map(|_| 20 + rng.below(80) as u32).collect();
        let at = 1 + rng.below(tokens.len() as u64 - 2) as usize;
        tokens[at] = 10 + label;
        let last = tokens.len() - 1;
        (tokens[0], tokens[last]) = (2, 3);
        (tokens, Some(label))
    };
    encoded(&(0..n).map(row).collect::<Vec<_>>())
}

/// A run's folder with all that the run is given.
pub struct Toy {
    pub dir: TempDir,
    pub train: Encoded,
    pub eval: Option<Encoded>,
    pub provenance: Provenance,
    pub head_seed: u64,
}

impl Toy {
    /// 22 rows in batches of 4: six updates an epoch, the last of two rows; one epoch without dropout.
    pub fn plain() -> Toy {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("base")).unwrap();
        fs::write(dir.path().join("base/vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\n").unwrap();
        let provenance = provenance(plan());
        Toy { dir, train: toy_rows(22, 1), eval: Some(toy_rows(12, 2)), provenance, head_seed: 7 }
    }

    pub fn with(change: impl FnOnce(&mut Plan)) -> Toy {
        let mut toy = Toy::plain();
        change(&mut toy.provenance.plan);
        toy
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// One call of `train` on a state made anew, as a new process would.
    pub fn go(
        &self,
        stop: &AtomicBool,
        on: &mut dyn FnMut(Event),
    ) -> (lowchurn_distill::Result<Outcome>, State) {
        let mut state = toy_state(self.head_seed);
        let outcome = self.go_with(&mut state, stop, on);
        (outcome, state)
    }

    pub fn go_with(
        &self,
        state: &mut State,
        stop: &AtomicBool,
        on: &mut dyn FnMut(Event),
    ) -> lowchurn_distill::Result<Outcome> {
        let run = Run {
            provenance: &self.provenance,
            train: &self.train,
            eval: self.eval.as_ref(),
            guides: Guides::default(),
            dir: &self.run_dir(),
            tokenizer_from: &self.dir.path().join("base"),
        };
        train(&run, state, stop, on)
    }

    /// Undisturbed to the end.
    pub fn finish(&self) -> (Outcome, Vec<Event>, State) {
        let mut events = Vec::new();
        let (outcome, state) = self.go(&AtomicBool::new(false), &mut |event| events.push(event));
        (outcome.unwrap(), events, state)
    }

    /// The error's whole text, with the folder's changing name taken out.
    pub fn refusal(&self) -> String {
        let (outcome, _) = self.go(&AtomicBool::new(false), &mut |_| {});
        self.text(outcome)
    }

    pub fn text<T>(&self, result: lowchurn_distill::Result<T>) -> String {
        let error: Error = result.err().expect("this should not have worked");
        error.to_string().replace(&self.dir.path().display().to_string(), "DIR")
    }

    /// All files of the finished run by name.
    pub fn released(&self) -> BTreeMap<String, Vec<u8>> {
        let names = names(&self.run_dir());
        let read = |name: String| (name.clone(), fs::read(self.run_dir().join(name)).unwrap());
        names.into_iter().map(read).collect()
    }
}

pub fn plan() -> Plan {
    Plan {
        epochs: 1,
        batch_size: BatchSize::Rows(4),
        eval_batch_size: 5,
        max_length: 16,
        learning_rate: 1e-3,
        logging_steps: 2,
        ..Plan::default_with(SelectBy::Accuracy)
    }
}

pub fn provenance(plan: Plan) -> Provenance {
    Provenance {
        plan,
        base: "golden/bert_tiny".into(),
        base_sha256: "b".repeat(64),
        train: "toy:train".into(),
        train_sha256: "1".repeat(64),
        eval: "toy:eval".into(),
        eval_sha256: "e".repeat(64),
        old: None,
        teacher: None,
        old_rows: None,
        share_of_old: None,
        buffer: None,
        labels: labels(),
        device: "cpu".into(),
        lowchurn_version: "0.1.0".into(),
    }
}

/// Sorted, hidden ones included.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The folders of a run that look like checkpoints.
pub fn checkpoints(run: &Path) -> Vec<String> {
    names(run).into_iter().filter(|name| name.contains("checkpoint")).collect()
}

pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

pub fn batch(rows: &Encoded, which: &[u32]) -> Batch {
    collate(rows, which, 0)
}

pub fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference.
pub fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

pub fn values(params: &Params) -> BTreeMap<String, Vec<f32>> {
    params.tensors().map(|(name, tensor)| (name.to_string(), numbers(tensor))).collect()
}
