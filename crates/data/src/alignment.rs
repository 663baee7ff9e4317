//! Label sets of two origins brought together by name: the data of an update with the deployed model's classes, and a
//! teacher's classes with its student's.
//!
//! A class index never changes on an update: the model's labels come first, in their order, and new classes after them.
//! Names are equal or they are not. What is merely alike ("Positive", "positive") stops the run and asks: taken for a new
//! class it would split one class in two, taken for the same it would be a guess.

use crate::error::{Error, LISTED, LabelSide, Result, nearest};

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

/// The entries that name one of these labels on the left: one map serves several files and teachers, and each has its own.
pub fn entries_for(map: &[(String, String)], labels: &[String]) -> Vec<(String, String)> {
    map.iter().filter(|(from, _)| labels.contains(from)).cloned().collect()
}

/// Refuses an entry that is of use to none of the label sets it was made for: a misspelt one would be passed over.
pub fn refuse_unused(map: &[(String, String)], label_sets: &[&[String]]) -> Result<()> {
    let is_used = |name: &String| label_sets.iter().any(|labels| labels.contains(name));
    let Some((from, to)) = map.iter().find(|(from, _)| !is_used(from)) else { return Ok(()) };
    let known = label_sets.iter().flat_map(|labels| labels.iter().map(String::as_str));
    let hint = match nearest(from, known) {
        Some(near) => format!("; did you mean {near:?}?"),
        None => String::new(),
    };
    let reason = format!("{from:?} is a label of none of the files and teachers here{hint}");
    Err(Error::BadLabelMap { entry: entry(from, to), reason })
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
    let near = |name: &String| {
        let others = theirs.iter().filter(|other| *other != name && !is_mapped(other));
        let near = ours.iter().chain(others).find(|other| is_near(name, other))?;
        Some((name.clone(), near.clone()))
    };
    let mut all: Vec<(String, String)> = Vec::new();
    for (name, near) in unknown.into_iter().filter_map(near) {
        // Of several that are alike in the data each goes to the one that the others go to, which needs no line.
        let last =
            all.iter().find(|(other, _)| *other == near).map_or(near, |(_, its)| its.clone());
        if last != name {
            all.push((name, last));
        }
    }
    if !all.is_empty() {
        return Err(Error::NearLabels { side, near: all });
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
    let after = ["label", "class"].iter().find_map(|word| name.strip_prefix(word));
    // "-1" is a class of its own, where "class-1" is a number.
    after.map_or(&name[..], |rest| rest.trim_start_matches(['_', '-', ' '])).parse().ok()
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

/// What a [`Error::NearLabels`] says: all pairs at once, and the map that makes them one or leaves them two.
pub(crate) fn said_of_near(side: LabelSide, near: &[(String, String)]) -> String {
    let shown = &near[..near.len().min(LISTED)];
    let (more, and_so_on) = match near.len() - shown.len() {
        0 => (String::new(), ""),
        n => (format!(" and {n} more"), " and so on"),
    };
    let pairs: Vec<String> =
        shown.iter().map(|(name, near)| format!("{name:?} to {near:?}")).collect();
    let (whose, pairs) = (side.whose(), pairs.join(", "));
    let (what, one, two) = match near {
        [(name, near)] => {
            (format!("label {name:?} of {whose} is close to {near:?}"), "one class", "two")
        }
        all => {
            let n = all.len();
            let what = format!("{n} labels of {whose} are close to others: {pairs}{more},");
            (what, "one class each", "two each")
        }
    };
    let typed = |to: fn(&(String, String)) -> &String| {
        let entries: Vec<String> = shown.iter().map(|pair| entry(&pair.0, to(pair))).collect();
        format!("--label-map \"{}\"{and_so_on}", entries.join(","))
    };
    // Two classes stay two where the one may be new; a teacher brings none.
    let apart = match side {
        LabelSide::Data => format!(", {} if they are {two}", typed(|pair| &pair.0)),
        LabelSide::Teacher => String::new(),
    };
    format!("{what} but not the same: {} if they are {one}{apart}", typed(|pair| &pair.1))
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(names: &str) -> Vec<String> {
        names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    /// The classes, where the data's went, and what is said; or the error.
    fn update(old: &str, data: &str, map: &str, new_classes: NewClasses) -> String {
        let map = if map.is_empty() { Vec::new() } else { parse_map(map).unwrap() };
        match align_update(&names(old), &names(data), &map, new_classes) {
            Err(error) => error.to_string(),
            Ok(found) => {
                assert_eq!(found.n_old, names(old).len());
                let lines = found.said.join("; ");
                format!("{} | {:?} | {lines}", found.labels.join(","), found.of_data)
            }
        }
    }

    #[test]
    fn the_models_classes_keep_their_places() {
        let check = |old, data, map, expected: &str| {
            assert_eq!(update(old, data, map, NewClasses::Allowed), expected, "{old} {data} {map}");
        };
        check("neg,pos", "neg,pos", "", "neg,pos | [0, 1] | neg (0) → neg (0); pos (1) → pos (1)");
        check("pos,neg", "neg,pos", "", "pos,neg | [1, 0] | neg (0) → neg (1); pos (1) → pos (0)");
        check("neg,pos", "pos", "", "neg,pos | [1] | pos (0) → pos (1); neg (0): not in the data");
        check(
            "neg,pos",
            "",
            "",
            "neg,pos | [] | neg (0): not in the data; pos (1): not in the data",
        );
        check(
            "neg,pos",
            "mixed,neg,pos,unclear",
            "",
            "neg,pos,mixed,unclear | [2, 0, 1, 3] | mixed (0) → new class 2; neg (1) → neg (0); pos (2) → pos (1); \
             unclear (3) → new class 3",
        );
        check(
            "neg,pos",
            "Pos,bad,neg",
            "Pos=pos, bad = neg",
            "neg,pos | [1, 0, 0] | Pos (0) → pos (1), by the label map; bad (1) → neg (0), by the label map; neg (2) → neg (0)",
        );
        check(
            "neg,pos",
            "Mixed,mixed",
            "Mixed=mixed",
            "neg,pos,mixed | [2, 2] | Mixed (0) → new class 2 (mixed), by the label map; mixed (1) → new class 2; \
             neg (0): not in the data; pos (1): not in the data",
        );
        check(
            "tier 1,tier 2",
            "tier 2,tier 3",
            "",
            "tier 1,tier 2,tier 3 | [1, 2] | tier 2 (0) → tier 2 (1); tier 3 (1) → new class 2; tier 1 (0): not in the data",
        );
        // Meant as they stand, though close.
        check(
            "legal",
            "llegal,legal",
            "llegal=llegal",
            "legal,llegal | [1, 0] | llegal (0) → new class 1; legal (1) → legal (0)",
        );
        check(
            "1,2",
            "1,2,unknown",
            "",
            "1,2,unknown | [0, 1, 2] | 1 (0) → 1 (0); 2 (1) → 2 (1); unknown (2) → new class 2",
        );
        check("1,-1", "-1,1", "", "1,-1 | [1, 0] | -1 (0) → -1 (1); 1 (1) → 1 (0)");
    }

    #[test]
    fn what_is_merely_alike_stops() {
        let check = |old, data, near: &str, typed: &str| {
            let name = typed.split('=').next().unwrap();
            let expected = format!(
                "label {name:?} of the data is close to {near:?} but not the same: --label-map \"{typed}\" if they are one \
                 class, --label-map \"{name}={name}\" if they are two"
            );
            assert_eq!(update(old, data, "", NewClasses::Allowed), expected);
            assert_eq!(update(old, data, "", NewClasses::Refused), expected);
        };
        check("negative,positive", "Positive,negative", "positive", "Positive=positive");
        check("negative,positive", "negative,positve", "positive", "positve=positive");
        check("negative,positive", "negative,positive,positvie", "positive", "positvie=positive");
        check("card arrival,pin", "card_arrival,pin", "card arrival", "card_arrival=card arrival");
        check("card arrival,pin", "CardArrival,pin", "card arrival", "CardArrival=card arrival");
        check("ÜBER,b", "über,b", "ÜBER", "über=ÜBER");
        check("a,b", "a,b,C,c", "c", "C=c");
        check("LABEL_0,LABEL_1", "0,LABEL_1", "LABEL_0", "0=LABEL_0");
        check("01,02", "1,02", "01", "1=01");
    }

    #[test]
    fn all_that_is_merely_alike_is_told_at_once() {
        let said = |old: &str, data: &str| update(old, data, "", NewClasses::Refused);
        assert_eq!(
            said("neg,pos,odd", "Neg,POS,odd"),
            "2 labels of the data are close to others: \"Neg\" to \"neg\", \"POS\" to \"pos\", but not the same: \
             --label-map \"Neg=neg,POS=pos\" if they are one class each, --label-map \"Neg=Neg,POS=POS\" if they are two each"
        );
        // What is advised is taken: no name is mapped to one that is mapped itself.
        let three = "no,Spam,spam,SPAM";
        let advice = "Spam=spam,SPAM=spam";
        assert!(said("no,yes", three).contains(&format!("--label-map \"{advice}\" if")));
        let taken = update("no,yes", three, advice, NewClasses::Allowed);
        assert!(taken.starts_with("no,yes,spam | [0, 2, 2, 2] | "), "{taken}");
        let names: Vec<String> = (0..25).map(|n| format!("{}a", "b".repeat(n))).collect();
        let many = said(&names.join(","), &names.join(",").to_uppercase());
        assert!(
            many.starts_with("25 labels of the data are close to others: \"A\" to \"a\", "),
            "{many}"
        );
        assert!(many.contains(" and 5 more, but not the same: --label-map \"A=a,BA=ba,"), "{many}");
        assert!(many.contains("\" and so on if they are one class each"), "{many}");
    }

    #[test]
    fn names_that_are_different() {
        let check = |a, b| assert!(!is_near(a, b), "{a} {b}");
        check("-1", "1");
        check("A", "A-");
        check("C", "C++");
        check("male", "female");
        check("tier 1", "tier 2");
        check("tier 1", "tier 11");
        check("no", "yo");
        check("+", "-");
        check("negative", "positive");
        check("unrelated", "related");
    }

    #[test]
    fn messages() {
        let check = |old, data, map, expected: &str| {
            assert_eq!(update(old, data, map, NewClasses::Refused), expected, "{old} {data} {map}");
        };
        check(
            "neg,pos",
            "mixed,neg,other",
            "",
            "the data has labels that the model lacks: mixed, other (the model's: neg, pos); --allow-new-classes makes \
             classes of them, --label-map \"mixed=LABEL\" gives one another name",
        );
        check(
            "LABEL_0,LABEL_1",
            "negative,positive",
            "",
            "one side counts its labels where the other names them: the data has negative, positive, the model LABEL_0, LABEL_1; \
             say which is which, perhaps --label-map \"negative=LABEL_0,positive=LABEL_1\" (a guess by order: look at some \
             rows first)",
        );
        check(
            "negative,positive",
            "1,0,7",
            "",
            "one side counts its labels where the other names them: the data has 1, 0, 7, the model negative, positive; \
             say which is which, perhaps --label-map \"1=positive,0=negative,7=LABEL\" (a guess by order: look at some rows \
             first)",
        );
        check(
            "neg,pos",
            "neg,pos",
            "Neg=neg",
            "label map \"Neg=neg\": \"Neg\" isn't a label of the data (neg, pos)",
        );
        check(
            "neg,pos",
            "Neg,pos",
            "Neg=negative",
            "label map \"Neg=negative\": \"negative\" isn't a label of the model (neg, pos)",
        );
        check(
            "neg,pos",
            "a,b",
            "a=b,b=neg",
            "label map \"a=b\": \"b\" is itself mapped to another label",
        );
        check("neg,pos", "neg,pos,neg", "", "label name \"neg\" is there twice, at 0 and 2");
        check("neg,neg", "neg", "", "label name \"neg\" is there twice, at 0 and 1");
        let twice = [("a".to_owned(), "neg".to_owned()), ("a".to_owned(), "pos".to_owned())];
        let error = align_update(&names("neg,pos"), &names("a"), &twice, NewClasses::Refused);
        assert_eq!(error.unwrap_err().to_string(), "label map \"a=pos\": \"a\" is mapped twice");
    }

    #[test]
    fn a_teachers_columns() {
        let check = |teacher, student, map: &str, expected: &str| {
            let map = if map.is_empty() { Vec::new() } else { parse_map(map).unwrap() };
            let found = match align_teacher(&names(teacher), &names(student), &map) {
                Ok(columns) => {
                    let shown =
                        |column: &Option<u32>| column.map_or("-".to_owned(), |c| c.to_string());
                    columns.iter().map(shown).collect::<Vec<_>>().join(" ")
                }
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expected, "{teacher} {student} {map:?}");
        };
        check("neg,pos", "neg,pos", "", "0 1");
        check("pos,neg", "neg,pos", "", "1 0");
        check("pos,neg", "neg,mixed,pos", "", "1 - 0");
        check("LABEL_1,LABEL_0", "neg,pos", "LABEL_1=pos,LABEL_0=neg", "1 0");
        check(
            "LABEL_0,LABEL_1",
            "neg,pos",
            "",
            "one side counts its labels where the other names them: the teacher has LABEL_0, LABEL_1, the student neg, pos; say \
             which is which, perhaps --label-map \"LABEL_0=neg,LABEL_1=pos\" (a guess by order: look at some rows \
             first)",
        );
        check(
            "neg,mixed,pos",
            "neg,pos",
            "",
            "the teacher has classes that the student lacks: mixed (the student's: neg, pos); say which they are with \
             --label-map \"mixed=LABEL\", or take a teacher of the same task",
        );
        check(
            "neg,mixed,pos",
            "neg,pos",
            "mixed=neg",
            "the teacher's classes \"neg\" and \"mixed\" would both be the student's \"neg\"; map each to a class of its own",
        );
        check(
            "Neg,pos",
            "neg,pos",
            "",
            "label \"Neg\" of the teacher is close to \"neg\" but not the same: --label-map \"Neg=neg\" if they are \
             one class",
        );
        check(
            "neg,pos",
            "neg,pos",
            "neu=neg",
            "label map \"neu=neg\": \"neu\" isn't a label of the teacher (neg, pos)",
        );
        check(
            "neg,pos",
            "neg,pos",
            "neg=neu",
            "label map \"neg=neu\": \"neu\" isn't a label of the student (neg, pos)",
        );
    }

    #[test]
    fn one_map_for_several() {
        let map = parse_map("Pos=pos,bad=neg,LABEL_0=neg").unwrap();
        let (first, second) = (names("Pos,neg"), names("bad,pos"));
        let teacher = names("LABEL_0,LABEL_1");
        assert_eq!(entries_for(&map, &first), parse_map("Pos=pos").unwrap());
        assert_eq!(entries_for(&map, &teacher), parse_map("LABEL_0=neg").unwrap());
        assert!(refuse_unused(&map, &[&first, &second, &teacher]).is_ok());
        let check = |map, expected: &str| {
            let error = refuse_unused(&parse_map(map).unwrap(), &[&first, &second]);
            assert_eq!(error.unwrap_err().to_string(), expected);
        };
        let reason = "is a label of none of the files and teachers here";
        check(
            "Pos=pos,Bad=neg",
            &format!("label map \"Bad=neg\": \"Bad\" {reason}; did you mean \"bad\"?"),
        );
        check("xyz=neg", &format!("label map \"xyz=neg\": \"xyz\" {reason}"));
    }

    #[test]
    fn maps_as_typed() {
        let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        let check = |text, expected: &[(String, String)]| {
            assert_eq!(parse_map(text).unwrap(), expected, "{text}");
        };
        check("a=b,c=d", &[pair("a", "b"), pair("c", "d")]);
        check(" a b = c ", &[pair("a b", "c")]);
        check(r"a\,b=c\=d\\e\f", &[pair("a,b", r"c=d\e\f")]);
        let refused = |text, message: &str| {
            assert_eq!(parse_map(text).unwrap_err().to_string(), message);
        };
        let expected = "expected FROM=TO, or several with commas between";
        refused("", &format!("label map \"\": {expected}"));
        refused("a=b,", &format!("label map \"\": {expected}"));
        refused("a", &format!("label map \"a\": {expected}"));
        refused("x=y,a=b=c", &format!("label map \"a=b=c\": {expected}"));
        refused("a=", "label map \"a=\": a name is empty; expected FROM=TO");
        refused("=b", "label map \"=b\": a name is empty; expected FROM=TO");
        refused("a=b,a=c", "label map \"a=c\": \"a\" is mapped twice");
    }

    proptest! {
        #[test]
        fn typed_maps_come_back(
            pairs in prop::collection::btree_map("[a-z,=\\\\ü\"]{1,6}", "[a-z,=\\\\ ]{0,3}[x\\\\]", 1..5),
        ) {
            let pairs: Vec<(String, String)> =
                pairs.into_iter().map(|(from, to)| (from, to.trim().to_owned())).collect();
            let text: Vec<String> = pairs.iter().map(|(from, to)| entry(from, to)).collect();
            prop_assert_eq!(parse_map(&text.join(",")).unwrap(), pairs);
        }

        /// Whatever is in the data: the model's labels stand first, and each class goes where its name is.
        #[test]
        fn indices_never_move(
            old in prop::collection::btree_set("[a-c0-2 _A]{1,3}", 2..5),
            data in prop::collection::btree_set("[a-c0-2 _A]{1,3}", 0..5),
            map in prop::collection::vec(("[a-c]{1,2}", "[a-c]{1,2}"), 0..2),
        ) {
            let old: Vec<String> = old.into_iter().rev().collect();
            let data: Vec<String> = data.into_iter().collect();
            let Ok(found) = align_update(&old, &data, &map, NewClasses::Allowed) else { return Ok(()) };
            prop_assert_eq!(&found.labels[..found.n_old], &old[..]);
            prop_assert_eq!(found.of_data.len(), data.len());
            for (name, index) in data.iter().zip(&found.of_data) {
                let meant = map.iter().find(|(from, _)| from == name).map_or(name, |(_, to)| to);
                prop_assert_eq!(&found.labels[*index as usize], meant);
            }
            let columns = align_teacher(&data, &found.labels, &map);
            if map.is_empty() && !data.is_empty() {
                for (at, column) in columns.unwrap().iter().enumerate() {
                    let teachers = data.iter().position(|name| *name == found.labels[at]);
                    prop_assert_eq!(column.map(|column| column as usize), teachers);
                }
            }
        }

        #[test]
        fn nothing_panics(
            old in prop::collection::vec(".{0,6}", 0..4), data in prop::collection::vec(".{0,6}", 0..4), text in ".{0,20}",
        ) {
            let map = parse_map(&text).unwrap_or_default();
            let _ = align_update(&old, &data, &map, NewClasses::Allowed);
            let _ = align_teacher(&data, &old, &map);
        }
    }
}
