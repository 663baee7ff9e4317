//! What a user may type. Only names, types and help; what it means is decided in `settings`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::console::Console;
use crate::settings::Settings;

mod compare;
mod diagnose;
mod distil;
mod export;
mod history;
mod post_shift;
mod publish;
mod repair;
mod update;

pub use compare::{Compare, Gate, GateFormat};
pub use diagnose::Diagnose;
pub use distil::{Distil, Student};
pub use export::Export;
pub use history::History;
pub use post_shift::{PostShift, ShiftBase, ShiftFor};
pub use publish::{Dtype, Publish};
pub use repair::{Refit, Repair, Towards};
pub use update::{BudgetFlags, Deployed, Ensemble, Init, MethodFlags, Sweep, Update};

/// Fine-tunes transformer text classifiers, and updates deployed ones so that they get better without changing their mind.
#[derive(Parser)]
#[command(name = "lowchurn", version, about, max_term_width = 110)]
pub struct Args {
    #[command(subcommand)]
    pub verb: Verb,

    /// One JSON object a line on stdout, for machines; words for people go to stderr
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum Verb {
    /// Train a classifier: base checkpoint + data set → runs/NAME, in the hub's layout
    Finetune(Box<Finetune>),
    /// Train the next model from a deployed one: close to it, certified against a churn budget, with a report
    Update(Box<Update>),
    /// Compare methods on the axes churn and accuracy, over one teacher table
    Sweep(Box<Sweep>),
    /// Without training: models between the deployed one and its successor, and the one of them to deploy
    Repair(Box<Repair>),
    /// Without training: add one number per class to a model's logits, to help the class that is worst off
    PostShift(Box<PostShift>),
    /// Train a student from larger teachers, of another architecture or tokenizer where need be
    Distil(Box<Distil>),
    /// Without training: make what a student starts from: fewer layers, fewer word pieces, or another size
    Student(Box<Student>),
    /// Compare two models, or two files of predictions: churn, negative flips, slices; report.html and report.json
    Compare(Box<Compare>),
    /// Why a student isn't its teacher: how its confidence deviates, in words and as a picture, and what to do about it
    Diagnose(Box<Diagnose>),
    /// Releases of one model on the same rows: churn of each against every earlier one, and rows that changed more than once
    History(Box<History>),
    /// The verdict of a report.json as exit code: 0 pass, 10 fail, 11 inconclusive
    Gate(Gate),
    /// A finished run → a repository of the hub, card and report included, in one commit that is read back
    Publish(Box<Publish>),
    /// Score a model on a labelled split
    Eval(Eval),
    /// Labels and scores for rows of a file, as JSON lines
    Predict(Predict),
    /// A model in another program's form: ONNX
    Export(Export),
    /// What this machine, build and hub connection can do; made to be pasted into an issue
    Doctor,
    /// Print a completion script for a shell
    Completions { shell: Shell },
    /// Write man pages, one a verb, into a folder
    Man {
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

#[derive(clap::Args, Clone)]
#[command(allow_negative_numbers = true)] // to be refused by what they are for
pub struct Finetune {
    /// A task (sst2), a data set of the hub (owner/name[:config][@revision]), a folder, or a file (csv, tsv, jsonl, parquet)
    #[arg(value_name = "TASK|DATASET")]
    pub data: Option<String>,

    /// A plan in TOML; flags win over it. The run.toml of an earlier run is one
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,

    #[command(flatten)]
    pub method: MethodFlags,

    #[command(flatten)]
    pub settings: Settings,

    /// A linear probe: the encoder reads each row once, its vectors are kept in tables beside the run's folder, and the last layer
    /// alone is trained on them; the same as --train-only last-layer
    #[arg(long, conflicts_with = "train_only")]
    pub probe: bool,

    /// Folder of the run [default: runs/NAME]
    #[arg(long, alias = "output_dir", alias = "output-dir", value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// Train this many seeds, from --seed upwards, and report mean and deviation
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub seeds: u32,

    /// Say what would be downloaded, read and computed; do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Remove the run that is in the output folder and start over
    #[arg(long, alias = "overwrite_output_dir")]
    pub fresh: bool,
}

#[derive(clap::Args)]
pub struct Eval {
    /// A folder in the hub's layout, a hub id, or a name from models/
    #[arg(long, value_name = "ID|DIR")]
    pub model: String,

    /// Task, data set, folder or file; `sst2:validation` picks a split
    #[arg(long, value_name = "TASK|DATASET|FILE")]
    pub data: String,

    /// The split, such as `validation` or `train[:10%]`
    #[arg(long, value_name = "SPLIT")]
    pub split: Option<String>,

    /// Of a multi-label model: the probability from which on a label holds [default: the model's own]
    #[arg(long, value_name = "SHARE")]
    pub threshold: Option<f64>,

    /// Names of labels that are called otherwise by the model: `DATA=MODEL,...`
    #[arg(long, value_name = "A=B,...")]
    pub label_map: Option<String>,

    /// The mean recall of so many of the worst classes is told, where there are more
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub worst_k: u32,

    #[command(flatten)]
    pub scoring: Scoring,
}

#[derive(clap::Args)]
pub struct Predict {
    /// A folder in the hub's layout, a hub id, or a name from models/
    #[arg(long, value_name = "ID|DIR")]
    pub model: String,

    /// Rows to predict: a csv, tsv, jsonl or parquet file, or any data set; labels are not needed
    #[arg(long, value_name = "FILE|DATASET")]
    pub data: String,

    /// The split, where the data has several
    #[arg(long, value_name = "SPLIT")]
    pub split: Option<String>,

    /// Names of labels of the rows that are called otherwise by the model: `DATA=MODEL,...`
    #[arg(long, value_name = "A=B,...")]
    pub label_map: Option<String>,

    /// Where the JSON lines go [default: stdout]
    #[arg(long, value_name = "FILE.jsonl")]
    pub output: Option<PathBuf>,

    /// Of a multi-label model: the probability from which on a label holds [default: the model's own]
    #[arg(long, value_name = "SHARE")]
    pub threshold: Option<f64>,

    /// Write logits too
    #[arg(long)]
    pub logits: bool,

    #[command(flatten)]
    pub scoring: Scoring,
}

/// What scoring rows needs, whatever is done with the scores.
#[derive(clap::Args, Clone, Default)]
pub struct Scoring {
    /// Column that holds the text
    #[arg(long, value_name = "COLUMN")]
    pub text_column: Option<String>,

    /// Column that holds the second text of a pair
    #[arg(long, value_name = "COLUMN")]
    pub pair_column: Option<String>,

    /// Column that holds the label
    #[arg(long, value_name = "COLUMN")]
    pub label_column: Option<String>,

    /// Column that holds the row's id
    #[arg(long, value_name = "COLUMN")]
    pub id_column: Option<String>,

    /// Tokens a row is cut to [default: as the model was trained, else as its tokenizer says]
    #[arg(long, alias = "max_seq_length", value_name = "N")]
    pub max_length: Option<usize>,

    /// Rows of one forward pass
    #[arg(long, alias = "per_device_eval_batch_size", value_name = "N", default_value_t = 64)]
    pub batch_size: usize,

    /// auto, cpu, cuda[:N] or metal
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,

    /// Matrix products in bf16, whatever the model was trained in; sums and weights stay f32 [default: f32]
    #[arg(long)]
    pub bf16: bool,
}

pub fn completions(shell: Shell, console: &mut Console) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "lowchurn", &mut script);
    console.out.write_all(&script)?;
    Ok(0)
}

/// lowchurn.1 and a page a verb, such as lowchurn-update.1.
pub fn man(folder: &Path, console: &mut Console) -> anyhow::Result<u8> {
    let cannot = || format!("{}: can't be written", folder.display());
    std::fs::create_dir_all(folder).with_context(cannot)?;
    clap_mangen::generate_to(Args::command(), folder).with_context(cannot)?;
    let n = Args::command().get_subcommands().count() + 1;
    console.tell(&format!("{}: {n} pages; read one with: man -l lowchurn.1", folder.display()))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use lowchurn_data::BatchSize;
    use lowchurn_kernels::Precision;

    use super::*;

    #[test]
    fn command_line_is_sound() {
        Args::command().debug_assert();
    }

    /// The words of a line as a shell has them, up to a comment or what stands behind the command.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
        for c in line.chars().chain([' ']) {
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (None, '\'' | '"') => quote = Some(c),
                (None, c) if c.is_whitespace() => {
                    if ["#", "|", "||", "&&", ">", ";"].contains(&word.as_str()) {
                        break;
                    }
                    words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
                }
                (_, c) => word.push(c),
            }
        }
        words
    }

    /// Those of the lines of code of a document.
    fn commands(text: &str) -> Vec<Vec<String>> {
        let joined = text.replace("\\\n", " ");
        let line = |line: &str| {
            let code = line.strip_prefix("    ").or(line.strip_prefix("$ "))?;
            let all = words(code.trim_start_matches("$ "));
            let mut rest = all.iter().skip_while(|word| word.contains('=') || *word == "run:");
            let verb: Vec<String> = match rest.next()?.as_str() {
                "lowchurn" => Vec::new(),
                "just" => match rest.next()?.as_str() {
                    "run" => Vec::new(),
                    verb @ ("finetune" | "update") => vec![verb.into()],
                    _ => return None,
                },
                _ => return None,
            };
            Some([vec!["lowchurn".into()], verb, rest.cloned().collect()].concat())
        };
        joined.lines().filter_map(line).collect()
    }

    /// A flag that was renamed would stay in them unseen.
    #[test]
    fn documents_name_verbs_and_flags_that_are_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let pages =
            std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
        let pages = pages.filter(|path| path.extension().is_some_and(|suffix| suffix == "md"));
        let more =
            ["README.md", "experiments/README.md", "docs/ci/README.md", "docs/ci/model-update.yml"];
        let mut n = 0;
        for page in pages.chain(more.map(|name| root.join(name))) {
            for line in commands(&std::fs::read_to_string(&page).unwrap()) {
                let read = Args::try_parse_from(&line);
                let is_help = read.as_ref().is_err_and(|error| error.exit_code() == 0);
                let said = read.err().map(|error| error.to_string()).unwrap_or_default();
                assert!(
                    is_help || said.is_empty(),
                    "{}: {}: {said}",
                    page.display(),
                    line.join(" ")
                );
                n += 1;
            }
        }
        assert!(n > 60, "{n} commands");
    }

    #[test]
    fn flags_that_a_verb_refuses_are_not_in_its_help() {
        let check = |verb: &str, flag: &str, is_said: bool| {
            let mut command = Args::command();
            let help = command.find_subcommand_mut(verb).unwrap().render_long_help().to_string();
            assert_eq!(help.contains(&format!(" --{flag} ")), is_said, "{verb} --{flag}");
        };
        for (verb, is_said) in [("finetune", true), ("update", false), ("sweep", false)] {
            for flag in ["train-split", "eval-split", "eval-fraction", "patience", "problem-type"] {
                check(verb, flag, is_said);
            }
        }
        for (verb, is_said) in [("update", true), ("repair", false)] {
            check(verb, "max-slice-nfr", is_said);
            check(verb, "max-class-nfr", is_said);
        }
        for (verb, is_said) in [("compare", true), ("gate", false), ("publish", false)] {
            check(verb, "golden", is_said);
        }
    }

    #[test]
    fn transformers_names_are_understood() {
        let line = "lowchurn finetune sst2 --model_name_or_path m --num_train_epochs 2 --learning_rate 1e-5 \
                    --per_device_train_batch_size 8 --max_seq_length 64 --output_dir x --warmup_steps 3";
        let args =
            Args::try_parse_from(line.split_whitespace()).map_err(|e| e.to_string()).unwrap();
        let Verb::Finetune(verb) = args.verb else { panic!("another verb") };
        assert_eq!(verb.settings.model.as_deref(), Some("m"));
        assert_eq!(
            (verb.settings.epochs, verb.settings.batch_size),
            (Some(2), Some(BatchSize::Rows(8)))
        );
        assert_eq!((verb.settings.max_length, verb.settings.warmup_steps), (Some(64), Some(3)));
        assert_eq!((verb.settings.learning_rate, verb.output), (Some(1e-5), Some("x".into())));
    }

    /// A percentage is no number to clap, so a sign before it would be taken for a flag's.
    #[test]
    fn a_loss_of_accuracy_may_be_allowed_as_a_percentage() {
        for verb in ["update --base b", "compare a b", "gate r.json", "repair a b --holdout h"] {
            for gain in [
                "--min-accuracy-gain -0.5%",
                "--min-accuracy-gain=-0.5%",
                "--min-accuracy-gain -0.005",
            ] {
                let line = format!("lowchurn {verb} {gain} --max-churn 2%");
                let args = Args::try_parse_from(line.split_whitespace())
                    .unwrap_or_else(|error| panic!("{line}: {error}"));
                let budget = match args.verb {
                    Verb::Update(verb) => verb.budget,
                    Verb::Compare(verb) => verb.budget,
                    Verb::Gate(verb) => verb.budget,
                    Verb::Repair(verb) => verb.budget,
                    _ => panic!("another verb"),
                };
                let found = (budget.min_accuracy_gain, budget.max_churn);
                assert_eq!(found, (Some(-0.005), Some(0.02)), "{line}");
            }
        }
    }

    #[test]
    fn bf16_is_a_flag_that_may_be_taken_back() {
        let check = |flags: &str, expected: Result<Option<Precision>, &str>| {
            let line = format!("lowchurn finetune {flags} sst2");
            let found = match Args::try_parse_from(line.split_whitespace()) {
                Ok(Args { verb: Verb::Finetune(verb), .. }) => {
                    assert_eq!(verb.data.as_deref(), Some("sst2"));
                    Ok(verb.settings.precision)
                }
                Ok(_) => panic!("another verb"),
                Err(error) => Err(error.to_string()),
            };
            let first = found.as_ref().map_err(|text| text.lines().next().unwrap_or_default());
            assert_eq!(first.copied(), expected, "{flags}");
        };
        check("", Ok(None));
        check("--bf16", Ok(Some(Precision::Bf16)));
        check("--bf16=true", Ok(Some(Precision::Bf16)));
        check("--bf16=false", Ok(Some(Precision::F32)));
        let said = "error: invalid value 'f16' for '--bf16[=<BOOL>]': expected true or false";
        check("--bf16=f16", Err(said));
    }
}
