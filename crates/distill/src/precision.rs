//! A precision of matrix products as files and people call it: "f32" or "bf16".

use lowchurn_kernels::Precision;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The kernels know no files; this gives their enum its names there, as `#[serde(with = "PrecisionName")]`.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Precision", rename_all = "lowercase")]
pub enum PrecisionName {
    F32,
    Bf16,
}

impl PrecisionName {
    pub fn of(precision: Precision) -> &'static str {
        match precision {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
}

/// For fields that are left out where they hold what files of before there was a choice mean.
pub(crate) fn is_f32(precision: &Precision) -> bool {
    *precision == Precision::F32
}

/// The same for an `Option`, as `#[serde(with = "precision_if_set")]`.
pub mod precision_if_set {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Named(#[serde(with = "PrecisionName")] Precision);

    pub fn serialize<S: Serializer>(value: &Option<Precision>, to: S) -> Result<S::Ok, S::Error> {
        value.map(Named).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Precision>, D::Error> {
        Ok(Option::<Named>::deserialize(from)?.map(|Named(precision)| precision))
    }
}
