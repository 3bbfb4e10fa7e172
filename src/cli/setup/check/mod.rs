//! `layby setup --check`: looks at everything that a pull meets, and says what is wrong with it.
//!
//! In the order of a pull: configuration, data directory, server, clients, upstreams. Changes nothing, pulls nothing, and
//! prints no secret: what is said of upstreams are their errors, which hold none.

mod clients;
mod local;
mod report;
mod server;
mod upstreams;

use std::io::Write as _;
use std::path::Path;

use super::listener;
use super::mirror::Mirror;
use crate::cli::{FileArg, OverrideArgs, configure, reachable};
use crate::config::Config;
use clients::Machine;
use report::Report;

/// What is looked at.
pub(super) struct Check<'a> {
    /// Instead of where the configuration listens.
    pub(super) mirror: Option<Mirror>,
    /// Stands for `/` where clients' files are looked for.
    pub(super) root: Option<&'a Path>,
    /// The configuration's file.
    pub(super) file: &'a FileArg,
    /// Whether to print JSON.
    pub(super) json: bool,
}

impl Check<'_> {
    /// Looks, and prints what was found. Whether nothing is wrong.
    pub(super) fn run(self, overrides: OverrideArgs) -> std::io::Result<bool> {
        let mut report = Report::default();
        let named = self.file.file();
        let what = named.as_ref().map_or_else(
            || "none is named, so the defaults hold".to_owned(),
            |path| path.display().to_string(),
        );
        match configure(self.file, overrides) {
            Ok(config) => {
                report.ok("configuration", what);
                for warning in config.warnings() {
                    report.warn("configuration", warning, "");
                }
                self.look(&config, &mut report)?;
            }
            Err(faults) => {
                let advice = "mend it; `layby serve` does not start with it";
                report.fail("configuration", faults.to_string(), advice);
            }
        }
        let text = if self.json {
            serde_json::to_string(&report)? + "\n"
        } else {
            report.text()
        };
        std::io::stdout().lock().write_all(text.as_bytes())?;
        Ok(report.is_well())
    }

    fn look(&self, config: &Config, report: &mut Report) -> std::io::Result<()> {
        local::data_directory(config, report);
        let mirror = match &self.mirror {
            Some(mirror) => Some(mirror.clone()),
            None => listener(config).ok(),
        };
        let path = std::env::var_os("PATH").filter(|_| self.root.is_none());
        let machine = Machine {
            root: self.root,
            path: path.as_deref(),
        };
        // The admin listener is this configuration's, which need not be the named mirror's.
        let admin = config.admin.listen.filter(|_| self.mirror.is_none());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            if let Some(mirror) = &mirror {
                server::server(mirror, admin.map(reachable), report).await;
                clients::clients(&machine, mirror, report);
            }
            upstreams::upstreams(config, report).await;
        });
        runtime.shutdown_background();
        Ok(())
    }
}
