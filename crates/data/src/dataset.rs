//! A data set on disk: which files make which split, and what is known of their columns.
//!
//! A folder is laid out as a repository of the hub is; files given by name are one split. Follows links, since the hub's
//! cache is made of them. Refuses folders nested too deeply to be a data set.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::example::LabelSet;
use crate::features::{Feature, FeatureKind, kind_of};
use crate::layout::{self, Layout};
use crate::table::{self, Format};

/// Splits with the paths of their files.
#[derive(Clone, Debug)]
pub struct Dataset {
    pub splits: Vec<SplitPaths>,
    /// From the card, else from the first file's footer; may be empty.
    pub features: Vec<Feature>,
    pub ids: Ids,
}

#[derive(Clone, Debug)]
pub struct SplitPaths {
    pub name: String,
    pub files: Vec<PathBuf>,
}

/// How the ids of rows are made; see `read`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ids {
    /// Every id starts with the name of its split.
    BySplit,
    /// An id column's values are the ids; without one they are this name and the row's number.
    Plain(String),
}

impl Dataset {
    /// The files of a layout under the folder that holds the repository.
    pub fn of_layout(layout: &Layout, root: &Path) -> Result<Dataset> {
        let splits: Vec<SplitPaths> = layout
            .splits
            .iter()
            .map(|split| SplitPaths {
                name: split.name.clone(),
                files: split.files.iter().map(|file| root.join(file)).collect(),
            })
            .collect();
        Dataset { splits, features: layout.features.clone(), ids: Ids::BySplit }.with_footer()
    }

    /// A local folder, laid out as the hub would: README.md first, else conventional names.
    pub fn of_folder(folder: &Path, config: Option<&str>) -> Result<Dataset> {
        let mut listing = Vec::new();
        list(folder, "", MOST_LEVELS, &mut listing)?;
        let card = folder.join("README.md");
        let readme = match card.is_file() {
            // A card in another encoding still has its front matter in ASCII.
            true => Some(
                String::from_utf8_lossy(&std::fs::read(&card).map_err(Error::read(&card))?)
                    .into_owned(),
            ),
            false => None,
        };
        Dataset::of_layout(&layout::layout(readme.as_deref(), &listing, config)?, folder)
    }

    /// Files with rows that lie in a data set's folder, in the formats that aren't read beside a better one.
    ///
    /// # Errors
    /// Those of listing the folder.
    pub fn other_formats(&self, folder: &Path) -> Result<Vec<String>> {
        let mut listing = Vec::new();
        list(folder, "", MOST_LEVELS, &mut listing)?;
        let read: Vec<&PathBuf> = self.splits.iter().flat_map(|split| &split.files).collect();
        let suffix = |path: &Path| path.extension().map(|suffix| suffix.to_ascii_lowercase());
        let formats: Vec<_> = read.iter().map(|path| suffix(path)).collect();
        let is_other =
            |name: &String| layout::is_data(name) && !formats.contains(&suffix(Path::new(name)));
        Ok(listing.into_iter().filter(is_other).collect())
    }

    /// Files given by name: one split, called as the first file's name suggests (`dev.csv`: validation), else `train`.
    pub fn of_files(files: &[PathBuf]) -> Result<Dataset> {
        let Some(first) = files.first() else {
            return Err(Error::NoDataFiles);
        };
        let stem =
            first.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let name = layout::keyword(&stem).unwrap_or("train").to_owned();
        let splits = vec![SplitPaths { name, files: files.to_vec() }];
        Dataset { splits, features: Vec::new(), ids: Ids::Plain(stem) }.with_footer()
    }

    /// The class names of a manifest, for data whose card and footer name none: integers in that column are indices into
    /// them, also where the rows are read for a model with another order. Names that are integers themselves are left as
    /// names.
    pub fn with_classes(mut self, column: &str, names: &LabelSet) -> Dataset {
        let known = matches!(kind_of(&self.features, column), Some(FeatureKind::Classes(_)));
        if !known && names.names().iter().all(|name| name.parse::<i64>().is_err()) {
            self.features.retain(|feature| feature.name != column);
            let kind = FeatureKind::Classes(names.names().to_vec());
            self.features.push(Feature { name: column.to_owned(), kind });
        }
        self
    }

    pub fn split_names(&self) -> Vec<String> {
        self.splits.iter().map(|split| split.name.clone()).collect()
    }

    fn with_footer(mut self) -> Result<Dataset> {
        for path in self.splits.iter().flat_map(|split| &split.files) {
            Format::of(path)?;
        }
        if self.features.is_empty()
            && let Some(first) = self.splits.first().and_then(|split| split.files.first())
            && Format::of(first)? == Format::Parquet
        {
            self.features = table::head(first)?.features;
        }
        Ok(self)
    }
}

const MOST_LEVELS: usize = 12;

// Relative paths with `/`, sorted, without hidden files.
fn list(folder: &Path, prefix: &str, levels: usize, found: &mut Vec<String>) -> Result<()> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::read(folder))? {
        entries.push(entry.map_err(Error::read(folder))?.path());
    }
    entries.sort();
    for path in entries {
        let name =
            path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with('.') {
            continue;
        }
        let relative = format!("{prefix}{name}");
        match path.is_dir() {
            true if levels > 0 => list(&path, &format!("{relative}/"), levels - 1, found)?,
            true => {}
            false => found.push(relative),
        }
    }
    Ok(())
}
