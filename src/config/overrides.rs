//! What flags and the environment say, which wins over the file.

use std::ffi::OsString;
use std::path::PathBuf;

/// A value from outside the file, not yet checked, and the flag or variable that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given<T> {
    /// The value.
    pub value: T,
    /// Who gave it: `--listen`, `LAYBY_LISTEN`.
    pub by: &'static str,
}

/// Values that win over those of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Addresses to listen on, instead of `listen`.
    pub listen: Option<Given<Vec<String>>>,
    /// Instead of `data_dir`.
    pub data_dir: Option<Given<PathBuf>>,
    /// Instead of `offline`.
    pub offline: Option<Given<String>>,
    /// Instead of `log.format`.
    pub log_format: Option<Given<String>>,
    /// Instead of `log.filter`.
    pub log_filter: Option<Given<String>>,
}

impl Overrides {
    /// What the environment says, as `variable` tells it. An empty variable is one that is not set.
    pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let get = |by: &'static str| {
            let value = variable(by).filter(|value| !value.is_empty())?;
            Some(Given { value, by })
        };
        let text = |by| {
            get(by).map(|given| Given {
                value: given.value.to_string_lossy().into_owned(),
                by,
            })
        };
        Self {
            listen: text("LAYBY_LISTEN").map(|given| Given {
                value: given.value.split(',').map(str::to_owned).collect(),
                by: given.by,
            }),
            data_dir: get("LAYBY_DATA_DIR").map(|given| Given {
                value: given.value.into(),
                by: given.by,
            }),
            offline: text("LAYBY_OFFLINE"),
            log_format: None,
            log_filter: text("LAYBY_LOG"),
        }
    }

    /// These values, and those of `other` where there is none.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            listen: self.listen.or(other.listen),
            data_dir: self.data_dir.or(other.data_dir),
            offline: self.offline.or(other.offline),
            log_format: self.log_format.or(other.log_format),
            log_filter: self.log_filter.or(other.log_filter),
        }
    }
}
