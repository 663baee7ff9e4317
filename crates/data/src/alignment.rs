//! Label sets of two origins brought together by name: the data of an update with the deployed model's classes, and a
//! teacher's classes with its student's.
//!
//! A class index never changes on an update: the model's labels come first, in their order, and new classes after them.
//! Names are equal or they are not. What is merely alike ("Positive", "positive") stops the run and asks: taken for a new
//! class it would split one class in two, taken for the same it would be a guess.

use crate::error::{Error, LabelSide, Result};

/// The classes after an update, and where the classes of the data went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// (K) The model's labels in their order, then the new ones in the order of the data.
    pub labels: Vec<String>,
    /// The first so many are the model's.
    pub n_old: usize,
    /// (K_data) Index in `labels` of each class of the data; several may share one where the map says so.
    pub of_data: Vec<u32>,
    /// Lines for people and for the report.
    pub said: Vec<String>,
}

/// Whether a label of the data that the model lacks may become a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewClasses {
    Refused,
    Allowed,
}

/// Aligns the classes of new data with those of the model that is updated. `map` holds (DATA, LABEL): the data's label on
/// the left is the class on the right, a label of the model or another one of the data. NAME=NAME says that a name is
/// meant as it stands, however close to another it is. A label of the model that the data lacks stays.
pub fn align_update(
    old: &[String],
    data: &[String],
    map: &[(String, String)],
    new_classes: NewClasses,
) -> Result<Alignment> {
    let partners = partners(LabelSide::Data, data, old, map)?;
    let mut labels = old.to_vec();
    let mut of_data = Vec::with_capacity(data.len());
    for partner in &partners {
        of_data.push(match *partner {
            Partner::Ours(index) => index,
            Partner::Own(at) => match labels[old.len()..].iter().position(|new| *new == data[at]) {
                Some(new) => (old.len() + new) as u32,
                None => {
                    labels.push(data[at].clone());
                    (labels.len() - 1) as u32
                }
            },
        });
    }
    if labels.len() > old.len() && new_classes == NewClasses::Refused {
        return Err(Error::NewLabels { new: labels.split_off(old.len()), old: old.to_vec() });
    }
    let said = said(&labels, old.len(), data, &of_data);
    Ok(Alignment { labels, n_old: old.len(), of_data, said })
}

/// For each class of the student the teacher's column (K_student), `None` where the teacher doesn't know the class. `map`
/// holds (TEACHER, STUDENT). A class of the teacher's that the student lacks is an error: its probability would be lost.
pub fn align_teacher(
    teacher: &[String],
    student: &[String],
    map: &[(String, String)],
) -> Result<Vec<Option<u32>>> {
    let partners = partners(LabelSide::Teacher, teacher, student, map)?;
    let mut columns = vec![None; student.len()];
    let mut extra = Vec::new();
    for (column, partner) in partners.iter().enumerate() {
        let Partner::Ours(class) = *partner else {
            extra.push(teacher[column].clone());
            continue;
        };
        if let Some(first) = columns[class as usize].replace(column as u32) {
            return Err(Error::TeacherLabelTwice {
                first: teacher[first as usize].clone(),
                second: teacher[column].clone(),
                student: student[class as usize].clone(),
            });
        }
    }
    match extra.is_empty() {
        true => Ok(columns),
        false => Err(Error::TeacherLabels { extra, student: student.to_vec() }),
    }
}

/// Reads `a=b,c=d`. A backslash takes a comma, an equals sign or a backslash as part of a name.
pub fn parse_map(text: &str) -> Result<Vec<(String, String)>> {
    let bad = |entry: &str, reason| Error::BadLabelMap { entry: entry.to_owned(), reason };
    let mut map: Vec<(String, String)> = Vec::new();
    for (raw, names) in split_map(text) {
        let names: Vec<&str> = names.iter().map(|name| name.trim()).collect();
        let [from, to] = names[..] else {
            return Err(bad(&raw, "expected FROM=TO, or several with commas between".to_owned()));
        };
        if from.is_empty() || to.is_empty() {
            return Err(bad(&raw, "a name is empty; expected FROM=TO".to_owned()));
        }
        if map.iter().any(|(known, _)| known == from) {
            return Err(bad(&raw, format!("{from:?} is mapped twice")));
        }
        map.push((from.to_owned(), to.to_owned()));
    }
    Ok(map)
}

/// Entries as typed, each with its names unescaped.
fn split_map(text: &str) -> Vec<(String, Vec<String>)> {
    let mut entries = vec![(String::new(), vec![String::new()])];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let escaped = letters.next_if(|next| letter == '\\' && [',', '=', '\\'].contains(next));
        let Some((raw, names)) = entries.last_mut() else { break };
        match (letter, escaped) {
            (',', _) => {
                entries.push((String::new(), vec![String::new()]));
                continue;
            }
            ('=', _) => names.push(String::new()),
            (_, letter_meant) => {
                let name = names.last_mut();
                name.into_iter().for_each(|name| name.push(letter_meant.unwrap_or(letter)));
            }
        }
        raw.push(letter);
        raw.extend(escaped);
    }
    entries
}

/// What a class on their side is on ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Partner {
    /// Index of our class.
    Ours(u32),
    /// None of ours: the class of their label at this place.
    Own(usize),
}

fn partners(
    side: LabelSide,
    theirs: &[String],
    ours: &[String],
    map: &[(String, String)],
) -> Result<Vec<Partner>> {
    refuse_twice(theirs)?;
    refuse_twice(ours)?;
    check_map(side, theirs, ours, map)?;
    let place = |names: &[String], name: &str| names.iter().position(|known| known == name);
    let is_mapped = |name: &String| map.iter().any(|(from, _)| from == name);
    let unknown: Vec<&String> =
        theirs.iter().filter(|name| !is_mapped(name) && place(ours, name).is_none()).collect();
    if let Some(suggestion) = numbers_for_names(theirs, ours, &unknown) {
        let (theirs, ours) = (theirs.to_vec(), ours.to_vec());
        return Err(Error::NumbersForNames { side, theirs, ours, suggestion });
    }
    for name in unknown {
        let others = theirs.iter().filter(|other| *other != name);
        if let Some(near) = ours.iter().chain(others).find(|other| is_near(name, other)) {
            let (name, near) = (name.clone(), near.clone());
            return Err(Error::NearLabel { side, name, near });
        }
    }
    let partner = |(at, name): (usize, &String)| {
        let meant = map.iter().find(|(from, _)| from == name).map_or(name, |(_, to)| to);
        match (place(ours, meant), place(theirs, meant)) {
            (Some(index), _) => Partner::Ours(index as u32),
            (None, own) => Partner::Own(own.unwrap_or(at)),
        }
    };
    Ok(theirs.iter().enumerate().map(partner).collect())
}

fn refuse_twice(names: &[String]) -> Result<()> {
    for (second, name) in names.iter().enumerate() {
        if let Some(first) = names[..second].iter().position(|earlier| earlier == name) {
            return Err(Error::DuplicateLabelName { name: name.clone(), first, second });
        }
    }
    Ok(())
}

fn check_map(
    side: LabelSide,
    theirs: &[String],
    ours: &[String],
    map: &[(String, String)],
) -> Result<()> {
    for (at, (from, to)) in map.iter().enumerate() {
        let bad = |reason: String| Err(Error::BadLabelMap { entry: entry(from, to), reason });
        if map[..at].iter().any(|(earlier, _)| earlier == from) {
            return bad(format!("{from:?} is mapped twice"));
        }
        if !theirs.contains(from) {
            let theirs = theirs.join(", ");
            return bad(format!("{from:?} isn't a label of {} ({theirs})", side.whose()));
        }
        if ours.contains(to) {
            continue;
        }
        if !theirs.contains(to) {
            let ours = ours.join(", ");
            return bad(format!("{to:?} isn't a label of {} ({ours})", side.owner()));
        }
        if map.iter().any(|(other, target)| other == to && target != to) {
            return bad(format!("{to:?} is itself mapped to another label"));
        }
    }
    Ok(())
}

/// One side counts its classes ("LABEL_0", "1"), the other names them: nothing says which number is which name. The
/// likeliest map, for a person to look at.
fn numbers_for_names(theirs: &[String], ours: &[String], unknown: &[&String]) -> Option<String> {
    let are_numbers = |names: &[String]| names.iter().all(|name| number(name).is_some());
    let is_theirs_counted = are_numbers(theirs);
    if theirs.is_empty() || unknown.len() < theirs.len() || is_theirs_counted == are_numbers(ours) {
        return None;
    }
    let at_number = |n: usize| match is_theirs_counted {
        true => ours.get(n),
        false => ours.iter().find(|name| number(name) == Some(n)),
    };
    let of = |(at, name): (usize, &String)| {
        let target = at_number(number(name).unwrap_or(at)).map_or("LABEL", String::as_str);
        entry(name, target)
    };
    Some(theirs.iter().enumerate().map(of).collect::<Vec<_>>().join(","))
}

/// The number of a label that is only counted: "2", "LABEL_2", "class 2".
fn number(name: &str) -> Option<usize> {
    let name = name.to_lowercase();
    let rest = ["label", "class"].iter().find_map(|word| name.strip_prefix(word)).unwrap_or(&name);
    rest.trim_start_matches(['_', '-', ' ']).parse().ok()
}

/// Alike but for case, inner spaces, hyphens and underscores, or but for one letter, or one number written in two ways.
/// Names that differ in a digit are different names ("tier 1", "tier 2"), and so are short ones.
fn is_near(a: &str, b: &str) -> bool {
    let is_same_number = number(a).is_some() && number(a) == number(b);
    let (a, b) = (folded(a), folded(b));
    let digits = |name: &str| name.chars().filter(char::is_ascii_digit).collect::<String>();
    let is_long = a.chars().count().min(b.chars().count()) >= 4;
    is_same_number
        || a == b
        || (is_long && digits(&a) == digits(&b) && strsim::osa_distance(&a, &b) == 1)
}

// Outer marks stay: "-1" isn't "1", "A-" isn't "A".
fn folded(name: &str) -> String {
    let name = name.trim().to_lowercase();
    let is_mark = |letter: char| !letter.is_alphanumeric();
    let inner = name.trim_matches(is_mark);
    let bare: String =
        inner.chars().filter(|letter| !letter.is_whitespace() && !"-_".contains(*letter)).collect();
    match inner.is_empty() {
        true => name,
        false => name.replacen(inner, &bare, 1),
    }
}

/// One entry of a map, as it has to be typed.
pub(crate) fn entry(from: &str, to: &str) -> String {
    let typed = |name: &str| name.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
    format!("{}={}", typed(from), typed(to))
}

fn said(labels: &[String], n_old: usize, data: &[String], of_data: &[u32]) -> Vec<String> {
    let line = |(at, (name, &index)): (usize, (&String, &u32))| {
        let label = &labels[index as usize];
        let mapped = if label == name { "" } else { ", by the label map" };
        match (index as usize) < n_old {
            true => format!("{name} ({at}) → {label} ({index}){mapped}"),
            false if label == name => format!("{name} ({at}) → new class {index}"),
            false => format!("{name} ({at}) → new class {index} ({label}){mapped}"),
        }
    };
    let mut lines: Vec<String> = data.iter().zip(of_data).enumerate().map(line).collect();
    for (index, label) in labels[..n_old].iter().enumerate() {
        if !of_data.contains(&(index as u32)) {
            lines.push(format!("{label} ({index}): not in the data"));
        }
    }
    lines
}
