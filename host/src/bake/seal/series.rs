//! Numbers of one kind of definition: what each was, and is when the component is written again.

/// What became of each definition, in order.
pub(super) struct Series {
    fates: Vec<Fate>,
    next: u32,
}

enum Fate {
    /// It has this number now.
    Kept(u32),
    /// It is gone; what it was.
    Gone(String),
}

impl Series {
    /// Of which `taken` numbers were given away beforehand.
    pub(super) fn after(taken: u32) -> Self {
        Series { fates: Vec::new(), next: taken }
    }

    /// The next definition stays.
    pub(super) fn keep(&mut self) {
        let number = self.add();
        self.fates.push(Fate::Kept(number));
    }

    /// The next definition goes.
    pub(super) fn remove(&mut self, what: String) {
        self.fates.push(Fate::Gone(what));
    }

    /// How many definitions there were up to here: the old number of the next one.
    pub(super) fn met(&self) -> u32 {
        self.fates.len() as u32
    }

    /// A definition that was not there before.
    pub(super) fn add(&mut self) -> u32 {
        self.next += 1;
        self.next - 1
    }

    /// What was removed under this number.
    pub(super) fn gone(&self, number: u32) -> Option<&String> {
        match self.fates.get(number as usize)? {
            Fate::Kept(_) => None,
            Fate::Gone(what) => Some(what),
        }
    }

    /// The number of today. One that is gone is noted in `dangling`.
    pub(super) fn now(&self, number: u32, dangling: &mut Option<String>) -> u32 {
        match self.fates.get(number as usize) {
            Some(Fate::Kept(now)) => return *now,
            Some(Fate::Gone(what)) => *dangling = Some(what.clone()),
            None => *dangling = Some(format!("number {number}, which is not defined")),
        }
        number
    }
}
