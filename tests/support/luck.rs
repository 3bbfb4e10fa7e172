//! What of the unsynced survives a power loss.

/// What survives of that which was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Luck {
    /// Everything: a killed process, not a power loss.
    All,
    /// Nothing.
    Nothing,
    /// Names, and the lengths of files, but no bytes: these read as zeros.
    Names,
    /// Bytes, but no names.
    Bytes,
    /// Each thing as this seed has it.
    Seed(u64),
}

/// Says what survives.
pub(super) struct Dice {
    luck: Luck,
    random: fastrand::Rng,
}

impl Dice {
    pub(super) fn new(luck: Luck) -> Self {
        let seed = if let Luck::Seed(seed) = luck { seed } else { 0 };
        Self {
            luck,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    pub(super) fn name_survives(&mut self) -> bool {
        match self.luck {
            Luck::All | Luck::Names => true,
            Luck::Nothing | Luck::Bytes => false,
            Luck::Seed(_) => self.random.bool(),
        }
    }

    pub(super) fn bytes_survive(&mut self) -> bool {
        match self.luck {
            Luck::All | Luck::Bytes => true,
            Luck::Nothing | Luck::Names => false,
            Luck::Seed(_) => self.random.bool(),
        }
    }

    pub(super) fn is_shortened(&mut self) -> bool {
        match self.luck {
            Luck::All | Luck::Names | Luck::Bytes => false,
            Luck::Nothing => true,
            Luck::Seed(_) => self.random.bool(),
        }
    }
}
