//! Parts of a model from the command line: what stands still is as it was in the files, adapters as folders, parts in a sweep,
//! and what is refused.

mod util;

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};
use util::{Lab, SMALL};

/// The tensors of a file by name, as bytes.
fn tensors(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + size]).unwrap();
    let all = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    let of = |(name, info): (&String, &Value)| {
        let at = |n: usize| 8 + size + info["data_offsets"][n].as_u64().unwrap() as usize;
        (name.clone(), bytes[at(0)..at(1)].to_vec())
    };
    all.map(of).collect()
}

/// What of the shipped encoder a run has changed.
fn changed(lab: &Lab, run: &str) -> Vec<String> {
    let tiny = fs::read(util::repository().join("models/tiny/model.safetensors")).unwrap();
    let (before, after) = (tensors(&tiny), tensors(&lab.read(&format!("{run}/model.safetensors"))));
    let stem = |name: &str| name.strip_prefix("bert.").unwrap_or(name).to_string();
    let before: BTreeMap<String, Vec<u8>> =
        before.into_iter().map(|(name, bytes)| (stem(&name), bytes)).collect();
    let is_other = |(name, bytes): &(&String, &Vec<u8>)| before.get(&stem(name)) != Some(*bytes);
    after.iter().filter(is_other).map(|(name, _)| stem(name)).collect()
}

fn is_head(name: &str) -> bool {
    name.starts_with("classifier.") || name.starts_with("pooler.")
}

#[test]
fn what_stands_still_is_the_bases() {
    let check = |flags: &str, moves: &dyn Fn(&str) -> bool, settings: &[&str]| {
        let lab = Lab::new();
        lab.ok(&format!("{SMALL} {flags} --output $T/run"));
        let changed = changed(&lab, "run");
        assert!(changed.len() >= 2, "{flags}: {changed:?}");
        let odd: Vec<&String> = changed.iter().filter(|name| !moves(name)).collect();
        assert!(odd.is_empty(), "{flags}: {odd:?}");
        let saved = lab.text("run/run.toml");
        for line in settings {
            assert!(saved.lines().any(|said| said == *line), "{line} in {saved}");
        }
        let manifest = lab.json("run/manifest.json");
        let again = lab.ok("finetune --plan $T/run/run.toml --output $T/run");
        assert!(again.out.contains("is finished") || again.err.contains("is finished"));
        assert_eq!(lab.json("run/manifest.json"), manifest);
    };
    check(
        "--freeze embeddings,layers:1",
        &|name| !name.starts_with("embeddings."),
        &["freeze = \"embeddings,layers:1\""],
    );
    check(
        "--train-only biases",
        &|name| is_head(name) || name.ends_with(".bias"),
        &["train_only = \"biases\""],
    );
    check(
        "--lora-rank 4 --learning-rate 1e-3",
        &|name| is_head(name) || name.ends_with("query.weight") || name.ends_with("value.weight"),
        &["lora_rank = 4", "lora_alpha = 8.0"],
    );
    check("--layer-decay 0.5", &|_| true, &["layer_decay = 0.5"]);
}

#[test]
fn an_adapters_folder_is_a_model() {
    let lab = Lab::new();
    let done = lab.ok(&format!(
        "{SMALL} --lora-rank 4 --lora-alpha 16 --lora-targets key,value --learning-rate 1e-3 --output $T/run"
    ));
    drop(done);
    assert_eq!(
        lab.names("run/adapter"),
        ["adapter_config.json", "adapter_model.safetensors", "config.json"]
    );
    let config = lab.json("run/adapter/adapter_config.json");
    assert_eq!(config["base_model_name_or_path"], "models/tiny");
    assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(4), &json!(16)));
    assert_eq!(config["target_modules"], json!(["key", "value"]));
    assert_eq!(config["modules_to_save"], json!(["classifier", "pooler"]));
    assert_eq!((&config["peft_type"], &config["task_type"]), (&json!("LORA"), &json!("SEQ_CLS")));
    let files = tensors(&lab.read("run/adapter/adapter_model.safetensors"));
    for name in [
        "bert.encoder.layer.0.attention.self.key.lora_A.weight",
        "bert.encoder.layer.0.attention.self.key.lora_B.weight",
        "bert.pooler.dense.weight",
        "classifier.bias",
    ] {
        assert!(
            files.contains_key(&format!("base_model.model.{name}")),
            "{name} in {:?}",
            files.keys()
        );
    }
    let manifest = lab.json("run/manifest.json");
    assert!(manifest["files"]["adapter/adapter_model.safetensors"].is_string());

    // The same predictions by the merged model and by the adapter on its base, wherever that is asked for.
    let predict = |model: &str, to: &str| {
        lab.ok(&format!(
            "predict --model {model} --data tickets --split train[60:90] --logits --output $T/{to}"
        ));
        lab.read(to)
    };
    let whole = predict("$T/run", "whole.jsonl");
    assert_eq!(predict("$T/run/adapter", "adapter.jsonl"), whole);
    let merged = lab.names("hf/hub/.lowchurn-merged");
    assert_eq!(merged.len(), 1);
    let merged = lab.read(&format!("hf/hub/.lowchurn-merged/{}model.safetensors", merged[0]));
    assert!(merged == lab.read("run/model.safetensors"), "merging gives other bytes");
    let line =
        "finetune tickets --train-split train[:40] --eval-split none --max-steps 2 --max-length 16";
    let done = lab.ok(&format!("{line} --model $T/run/adapter --output $T/next"));
    assert!(
        format!("{}{}", done.out, done.err)
            .contains("$T/run/adapter: merged into models/tiny, in ")
    );

    // Without its base it is nothing.
    let edit = |change: &dyn Fn(&mut Value), expected: &str| {
        copy(&lab, "run/adapter", "other");
        let mut config = lab.json("other/adapter_config.json");
        change(&mut config);
        lab.write("other/adapter_config.json", config.to_string());
        let done = lab.run("predict --model $T/other --data tickets --split train[:3]");
        assert!(matches!(done.code, Some(2 | 3)), "{:?}", done.code);
        let root = lab.root().display().to_string();
        assert_eq!(done.error().replace(&root, "$T"), expected);
    };
    edit(
        &|config| config["base_model_name_or_path"] = json!("runs/no-such-run"),
        "$T/other: its base model is runs/no-such-run: runs/no-such-run: there is no folder runs/no-such-run",
    );
    edit(
        &|config| config["base_model_name_or_path"] = json!(""),
        "$T/other: this adapter can't be merged: \
        base_model_name_or_path names no base model",
    );
    let own = lab.path("other").display().to_string();
    edit(
        &|config| config["base_model_name_or_path"] = json!(own),
        "$T/other: its base model is $T/other, which is an adapter too; merge that one first",
    );
    edit(
        &|config| config["peft_type"] = json!("IA3"),
        "$T/other/adapter_config.json: key \"peft_type\" is \"IA3\", expected \"LORA\", the only kind that is read",
    );
    let next = lab.path("next").display().to_string();
    let done = {
        copy(&lab, "run/adapter", "other");
        let mut config = lab.json("other/adapter_config.json");
        config["base_model_name_or_path"] = json!(next);
        lab.write("other/adapter_config.json", config.to_string());
        lab.run("predict --model $T/other --data tickets --split train[:3]").expect(2)
    };
    assert!(done.error().contains(", but it was trained on other weights or another tokenizer: "));
}

#[test]
fn an_update_by_adapters_keeps_its_adapter() {
    let lab = Lab::new();
    lab.ok(&format!("{SMALL} --output $T/base"));
    let line = "update --base $T/base --tables $T/tables --new tickets:train[60:90] --holdout tickets:train[100:200] \
                --max-steps 4 --interpolate none --lora-rank 2 --learning-rate 1e-3 --output $T/next";
    lab.ok(line);
    let config = lab.json("next/adapter/adapter_config.json");
    let files = lab.json("next/manifest.json")["files"].clone();
    assert!(files["adapter/adapter_model.safetensors"].is_string(), "{files}");
    assert_eq!(config["base_model_name_or_path"], json!(lab.path("base")));
    let predict = |model: &str| {
        lab.ok(&format!(
            "predict --model {model} --data tickets --split train[60:90] --output $T/out.jsonl"
        ));
        lab.read("out.jsonl")
    };
    assert_eq!(predict("$T/next/adapter"), predict("$T/next"));
    // The next update asks again what is to be trained, and at which rate.
    lab.ok("update --base $T/next --tables $T/tables --new tickets:train[90:100] --holdout tickets:train[100:200] \
            --max-steps 2 --interpolate none --output $T/third");
    let settings = lab.text("third/run.toml");
    assert!(
        !settings.contains("lora") && settings.contains("learning_rate = 0.00005"),
        "{settings}"
    );
    assert!(!lab.path("third/adapter").exists());
}

#[test]
fn parts_are_points_of_a_sweep() {
    let lab = Lab::new();
    lab.ok(&format!("{SMALL} --output $T/base"));
    let line = "sweep --base $T/base --tables $T/tables --new tickets:train[60:90] --holdout tickets:train[100:200] \
                --max-steps 2 --method distil --init warm --interpolate none --output $T/sweep";
    let parts = "--trained full --trained lora-rank=2,learning-rate=1e-3 --trained train-only=biases \
                 --trained freeze=embeddings+layers:1";
    lab.ok(&format!("{line} {parts}"));
    let frontier = lab.json("sweep/frontier.json");
    let mut settings: Vec<String> = frontier["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| point["setting"].as_str().unwrap().to_string())
        .collect();
    settings.sort();
    assert_eq!(
        settings,
        [
            "λ 0.5",
            "λ 0.5 freeze embeddings+layers:1",
            "λ 0.5 lora-rank 2 learning-rate 1e-3",
            "λ 0.5 train-only biases",
        ]
    );
    let point = lab
        .json("sweep/points/distil-warm-l-0.5-lora-rank-2-learning-rate-1e-3/seed-42/point.json");
    let plan = &point["made_from"]["plan"];
    assert_eq!((&plan["lora_rank"], &plan["learning_rate"]), (&json!(2), &json!(1e-3)));
    // A second time nothing is trained.
    let done = lab.ok(&format!("{line} {parts}"));
    assert!(!done.err.contains("step 2/2"), "{}", done.err);
}

#[test]
fn what_can_not_be_trained() {
    let lab = Lab::new();
    let check = |flags: &str, expected: &str| {
        let done = lab.run(&format!("{SMALL} {flags} --output $T/run")).expect(2);
        assert_eq!(done.error(), expected, "{flags}");
        assert!(!lab.path("run").exists());
    };
    check("--lora-rank 0", "lora_rank is 0, expected at least 1");
    check("--layer-decay 0", "layer_decay is 0, expected a number above 0, at most 1");
    check("--layer-decay 1.01", "layer_decay is 1.01, expected a number above 0, at most 1");
    check("--lora-alpha 4", "lora_alpha is 4, expected nothing without lora_rank");
    check(
        "--lora-rank 4 --train-only biases",
        "train_only is biases, expected nothing beside lora_rank: take one of them",
    );
    check(
        "--lora-rank 2 --lora-targets query,q_lin",
        "no module of the layers is called \"q_lin\"; there are attention.output.dense, attention.self.key, \
         attention.self.query, attention.self.value, intermediate.dense, output.dense",
    );
    check(
        "--freeze layers:99",
        &format!(
            "freeze is layers:99, expected at most layers:{}: so many layers of its own has this model",
            layers()
        ),
    );
    let all = format!("embeddings,layers:{},head", layers());
    check(
        &format!("--freeze {all}"),
        &format!("freeze is {all}, which is all of the model; leave something to train"),
    );
    let done = lab.run(&format!("{SMALL} --freeze head --output $T/run")).expect(2);
    assert_eq!(
        done.error(),
        "freeze is head, but classifier.bias, classifier.weight starts anew, and would stay as it was drawn; train the head"
    );
    let done = lab.run(&format!("{SMALL} --freeze heads --output $T/run")).expect(2);
    assert!(
        done.err.contains(
            "\"heads\" is no part to freeze; expected embeddings, layers:N (the lowest N), head"
        ),
        "{}",
        done.err
    );
}

/// Of the shipped encoder.
fn layers() -> u64 {
    let config = fs::read(util::repository().join("models/tiny/config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    config["num_hidden_layers"].as_u64().unwrap()
}

fn copy(lab: &Lab, from: &str, to: &str) {
    for name in lab.names(from) {
        lab.write(&format!("{to}/{name}"), lab.read(&format!("{from}/{name}")));
    }
}
