//! The architectures there are, by the names that a config.json gives them. What is not known is answered with the nearest.

/// An architecture; what is particular to it stands in a file of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelType {
    Bert,
    DistilBert,
    Roberta,
    XlmRoberta,
    Camembert,
    Electra,
    Mpnet,
    Albert,
    DebertaV2,
    ModernBert,
}

use ModelType::*;

impl ModelType {
    pub const ALL: [ModelType; 10] = [
        Bert, DistilBert, Roberta, XlmRoberta, Camembert, Electra, Mpnet, Albert, DebertaV2,
        ModernBert,
    ];

    /// `model_type` in a config.json.
    pub fn name(self) -> &'static str {
        match self {
            Bert => "bert",
            DistilBert => "distilbert",
            Roberta => "roberta",
            XlmRoberta => "xlm-roberta",
            Camembert => "camembert",
            Electra => "electra",
            Mpnet => "mpnet",
            Albert => "albert",
            DebertaV2 => "deberta-v2",
            ModernBert => "modernbert",
        }
    }

    /// What the names of its classes in transformers begin with.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Bert => "Bert",
            DistilBert => "DistilBert",
            Roberta => "Roberta",
            XlmRoberta => "XLMRoberta",
            Camembert => "Camembert",
            Electra => "Electra",
            Mpnet => "MPNet",
            Albert => "Albert",
            DebertaV2 => "DebertaV2",
            ModernBert => "ModernBert",
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<ModelType> {
        ModelType::ALL.into_iter().find(|known| known.name() == name)
    }

    /// The one that a class such as `RobertaForMaskedLM` belongs to.
    pub(crate) fn of_class(class: &str) -> Option<ModelType> {
        ModelType::ALL.into_iter().find(|known| class.starts_with(known.class()))
    }

    /// The longest known name that stands in `name`, else the shortest that `name` stands in, else the one that takes the
    /// fewest changes.
    pub(crate) fn nearest(name: &str) -> ModelType {
        let name = name.to_lowercase().replace('_', "-");
        let rank = |known: &ModelType| {
            let known = known.name().trim_end_matches("-v2");
            if name.contains(known) {
                (0, usize::MAX - known.len())
            } else if !name.is_empty() && known.contains(&name) {
                (1, known.len())
            } else {
                (2, changes(&name, known))
            }
        };
        ModelType::ALL.into_iter().min_by_key(rank).unwrap_or(Bert)
    }
}

/// Characters to insert, delete or replace on the way from `a` to `b` (Levenshtein's distance).
fn changes(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in b.iter().enumerate() {
            let least = (row[j] + 1).min(row[j + 1] + 1).min(diagonal + usize::from(a != *b));
            diagonal = std::mem::replace(&mut row[j + 1], least);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_classes_come_back() {
        for known in ModelType::ALL {
            assert_eq!(ModelType::of_name(known.name()), Some(known));
            assert_eq!(ModelType::nearest(known.name()), known);
            let class = format!("{}ForMaskedLM", known.class());
            assert_eq!(ModelType::of_class(&class), Some(known));
        }
        assert_eq!(ModelType::of_class("GPT2Model"), None);
    }

    #[test]
    fn the_nearest_is_a_relative_if_there_is_one() {
        for (name, nearest) in [
            ("roberta-prelayernorm", Roberta),
            ("nomic_bert", Bert),
            ("modernbert-decoder", ModernBert),
            ("xlm-roberta-xl", XlmRoberta),
            ("xlm_roberta", XlmRoberta),
            ("RobertaSomething", Roberta),
            ("robrta", Roberta),
            ("elektra", Electra),
            ("mpnet2", Mpnet),
            ("deberta", DebertaV2),
            ("deberta-v3", DebertaV2),
            ("xlm", XlmRoberta),
            ("", Bert),
        ] {
            assert_eq!(ModelType::nearest(name), nearest, "{name}");
        }
    }

    #[test]
    fn distances() {
        assert_eq!((changes("kitten", "sitting"), changes("", "ab"), changes("ab", "")), (3, 2, 2));
    }
}
