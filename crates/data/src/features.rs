//! What is known of a column before it is read: text, number, classes with names — from a dataset card or a parquet footer.
//!
//! Knows nothing of files. Kinds it has no use for (images, structs) are kept as `Other` and refused where they are wanted.

use serde_json::Value;

/// A column as the card or the footer describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    pub name: String,
    pub kind: FeatureKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeatureKind {
    Text,
    Integer,
    Float,
    /// Stored as integers that index these names.
    Classes(Vec<String>),
    /// A list of class indices: multi-label.
    ClassList(Vec<String>),
    Other,
}

impl FeatureKind {
    /// The kind that a `dtype` of Hugging Face `datasets` names.
    pub fn of_dtype(dtype: &str) -> FeatureKind {
        match dtype {
            "string" | "large_string" | "string_view" => FeatureKind::Text,
            _ if dtype.starts_with("int") || dtype.starts_with("uint") => FeatureKind::Integer,
            _ if dtype.starts_with("float") => FeatureKind::Float,
            _ => FeatureKind::Other,
        }
    }

    /// A list of this kind.
    pub fn listed(self) -> FeatureKind {
        match self {
            FeatureKind::Classes(names) | FeatureKind::ClassList(names) => {
                FeatureKind::ClassList(names)
            }
            _ => FeatureKind::Other,
        }
    }
}

/// The kind of one column.
pub fn kind_of<'f>(features: &'f [Feature], column: &str) -> Option<&'f FeatureKind> {
    features.iter().find(|feature| feature.name == column).map(|feature| &feature.kind)
}

/// Reads the value of a parquet footer's `huggingface` key: `{"info": {"features": {"label": {"names": [..], "_type": "ClassLabel"}}}}`.
///
/// Anything that isn't of this form gives no features: the footer is a hint, the column's values are what counts.
pub fn of_footer(json: &str) -> Vec<Feature> {
    let value: Value = serde_json::from_str(json).unwrap_or_default();
    let Some(features) = value.pointer("/info/features").and_then(Value::as_object) else {
        return Vec::new();
    };
    features
        .iter()
        .map(|(name, value)| Feature { name: name.clone(), kind: footer_kind(value) })
        .collect()
}

fn footer_kind(value: &Value) -> FeatureKind {
    match value {
        Value::Array(inner) => inner.first().map_or(FeatureKind::Other, footer_kind).listed(),
        _ => match value["_type"].as_str() {
            Some("ClassLabel") => {
                let names = value["names"].as_array().map(Vec::as_slice).unwrap_or_default();
                let names: Vec<String> =
                    names.iter().filter_map(Value::as_str).map(str::to_owned).collect();
                if names.is_empty() { FeatureKind::Integer } else { FeatureKind::Classes(names) }
            }
            Some("Sequence" | "List" | "LargeList") => footer_kind(&value["feature"]).listed(),
            Some("Value") => FeatureKind::of_dtype(value["dtype"].as_str().unwrap_or_default()),
            _ => FeatureKind::Other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn footers() {
        let check = |feature: &str, kind: FeatureKind| {
            let json = format!(r#"{{"info": {{"features": {{"x": {feature}}}}}}}"#);
            assert_eq!(of_footer(&json), [Feature { name: "x".to_owned(), kind }]);
        };
        let names = || vec!["a".to_owned(), "b".to_owned()];
        check(r#"{"names": ["a", "b"], "_type": "ClassLabel"}"#, FeatureKind::Classes(names()));
        check(r#"{"num_classes": 2, "_type": "ClassLabel"}"#, FeatureKind::Integer);
        check(
            r#"{"feature": {"names": ["a", "b"], "_type": "ClassLabel"}, "_type": "List"}"#,
            FeatureKind::ClassList(names()),
        );
        check(r#"[{"names": ["a", "b"], "_type": "ClassLabel"}]"#, FeatureKind::ClassList(names()));
        check(r#"{"dtype": "string", "_type": "Value"}"#, FeatureKind::Text);
        check(r#"{"dtype": "float32", "_type": "Value"}"#, FeatureKind::Float);
        check(r#"{"dtype": "int32", "_type": "Value"}"#, FeatureKind::Integer);
        check(r#"{"_type": "Image"}"#, FeatureKind::Other);
        check("7", FeatureKind::Other);
        assert_eq!(of_footer("not json"), []);
        assert_eq!(of_footer("{}"), []);
    }

    proptest! {
        #[test]
        fn never_panics(json in ".*") {
            of_footer(&json);
        }
    }
}
