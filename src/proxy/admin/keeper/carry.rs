//! Images out of the cache into a file, and back.

use std::sync::Arc;

use futures_util::stream;
use tokio::sync::mpsc;

use crate::proxy::admin::export::Exporter;
use crate::proxy::admin::import::Importer;
use crate::proxy::admin::model::{ImportEvent, ImportRequest};
use crate::proxy::admin::{AdminError, Archive, Events};

use super::{EVENTS, Keeper};

impl Keeper {
    /// Whether a long action could begin.
    #[cfg(test)]
    pub(in crate::proxy::admin) fn turn_is_free(&self) -> bool {
        self.turn().is_ok()
    }

    pub(super) fn exporter(&self) -> Exporter {
        Exporter {
            store: Arc::clone(&self.store),
            names: Arc::clone(&self.names),
            pins: Arc::clone(&self.pins),
            tasks: self.tasks.clone(),
        }
    }

    pub(super) fn take_in(
        &self,
        request: ImportRequest,
        archive: Archive,
    ) -> Result<Events<ImportEvent>, AdminError> {
        if let Some(name) = &request.name {
            // Before anything is read.
            self.names.image(name)?;
        }
        let turn = self.turn()?;
        let (sender, events) = mpsc::channel(EVENTS);
        let importer = Importer {
            store: Arc::clone(&self.store),
            names: Arc::clone(&self.names),
            pins: Arc::clone(&self.pins),
            protection: Arc::clone(&self.protection),
            memory: self.memory.clone(),
            clock: self.clock.clone(),
            request,
            events: sender,
            stopping: self.tasks.stopping(),
            runtime: tokio::runtime::Handle::current(),
            turn,
        };
        importer.start(archive, &self.tasks);
        Ok(Box::pin(stream::unfold(events, |mut events| async {
            let event = events.recv().await?;
            Some((Ok(event), events))
        })))
    }
}
