//! Puts the manifests of datasets/ and models/ into the program, so that an installed one knows them too.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let mut code = String::new();
    for (name, folder) in [("DATASETS", "datasets"), ("MODELS", "models")] {
        println!("cargo:rerun-if-changed={folder}");
        write_list(&mut code, name, &root.join(folder));
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    fs::write(out.join("manifests.rs"), code).expect("OUT_DIR is writable");
}

fn write_list(code: &mut String, name: &str, folder: &Path) {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder of manifests")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "toml"))
        .collect();
    paths.sort();
    writeln!(code, "const {name}: &[(&str, &str)] = &[").expect("a string grows");
    for path in paths {
        let stem = path.file_stem().expect("a file name").to_string_lossy().into_owned();
        writeln!(code, "    ({stem:?}, include_str!({:?})),", path.display().to_string())
            .expect("a string grows");
    }
    code.push_str("];\n");
}
