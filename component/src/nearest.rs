//! "Did you mean": which of some names was probably meant.

/// The known name that is nearest to `name`, if it is near: at most half of the letters differ.
pub(crate) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let distance = |known: &&str| strsim::damerau_levenshtein(name, known);
    known.iter().copied().min_by_key(distance).filter(|known| distance(known) * 2 <= name.len())
}
