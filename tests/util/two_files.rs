//! Two prediction files, and a command whose message is checked word by word.
#![allow(dead_code, reason = "each target uses its part")]

use crate::util::{Done, Lab};

/// A fresh folder in which two files of ten rows lie: rows 0 to 4 are `neg`; the new model breaks row 1, mends row 9, and
/// says the rest as before.
pub fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.cwd = lab.root().to_path_buf();
    lab.write("old.csv", file(|row| row >= 5 && row != 9));
    lab.write("new.csv", file(|row| row == 1 || row >= 5));
    lab
}

/// What scikit-learn's users write: id, true class, prediction, a column of scores a class.
pub fn file(is_positive: impl Fn(usize) -> bool) -> String {
    let row = |row: usize| {
        let truth = if row >= 5 { "pos" } else { "neg" };
        let (said, neg, pos) = match is_positive(row) {
            true => ("pos", 0.2, 0.8),
            false => ("neg", 0.9, 0.1),
        };
        let channel = if row.is_multiple_of(2) { "mail" } else { "chat" };
        format!("{row},{truth},{said},{neg},{pos},{channel}\n")
    };
    "id,y_true,y_pred,proba_neg,proba_pos,channel\n".to_string()
        + &(0..10).map(row).collect::<String>()
}

#[track_caller]
pub fn check(lab: &Lab, line: &str, code: i32, expected: &str) -> Done {
    let done = lab.run(line).expect(code);
    assert_eq!(done.error(), expected, "stderr of: lowchurn {line}");
    assert!(!lab.path("out").exists(), "left behind by: lowchurn {line}");
    done
}
