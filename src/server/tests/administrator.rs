//! Administration that says what it was asked, and does nothing.

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::proxy::admin::model::{
    Collected, ExportPlan, ExportRequest, ImageDetail, ImagePage, ImportEvent, ImportRequest,
    PinChange, PinList, Refreshed, Removal, Statistics, UpstreamStatistics, VerifyEvent,
};
use crate::proxy::admin::{AdminError, Administration, Archive, Events, ImageQuery, Reply};
use crate::proxy::warm::model::{WarmEvent, WarmRequest};

/// The token that is asked for.
pub(super) const TOKEN: &str = "an-admin-token-of-the-tests";

#[derive(Default)]
pub(super) struct FakeAdministration {
    pub(super) asked: Mutex<Vec<String>>,
    /// What the next verification tells.
    pub(super) events: Mutex<Option<mpsc::Receiver<VerifyEvent>>>,
}

impl FakeAdministration {
    fn note(&self, asked: String) {
        self.asked.lock().push(asked);
    }
}

impl Administration for FakeAdministration {
    fn images(&self, query: ImageQuery) -> Reply<'_, ImagePage> {
        self.note(format!("{query:?}"));
        Box::pin(async {
            Ok(ImagePage {
                images: Vec::new(),
                next: None,
            })
        })
    }

    fn image<'a>(&'a self, name: &'a str) -> Reply<'a, ImageDetail> {
        Box::pin(async move { Err(AdminError::NotFound(format!("{name} is not here"))) })
    }

    fn statistics(&self) -> Reply<'_, Statistics> {
        Box::pin(async {
            Ok(Statistics {
                size_bytes: 7,
                blobs: 1,
                counting: false,
                max_size_bytes: None,
                since: None,
                total: UpstreamStatistics::default(),
                upstreams: Vec::new(),
            })
        })
    }

    fn remove<'a>(&'a self, images: &'a str, dry_run: bool) -> Reply<'a, Removal> {
        self.note(format!("remove {images} {dry_run}"));
        Box::pin(async move {
            Ok(Removal {
                dry_run,
                ..Removal::default()
            })
        })
    }

    fn pins(&self) -> Reply<'_, PinList> {
        Box::pin(async { Ok(PinList::default()) })
    }

    fn pin<'a>(&'a self, images: &'a str) -> Reply<'a, PinChange> {
        self.note(format!("pin {images}"));
        Box::pin(async { Err(AdminError::Invalid("no".to_owned())) })
    }

    fn unpin<'a>(&'a self, _images: &'a str) -> Reply<'a, PinChange> {
        Box::pin(async { Err(AdminError::Failed("broken".to_owned())) })
    }

    fn collect(&self, _to: Option<u64>, _dry_run: bool) -> Reply<'_, Collected> {
        Box::pin(async { Err(AdminError::Busy) })
    }

    fn refresh<'a>(&'a self, _images: &'a str) -> Reply<'a, Refreshed> {
        Box::pin(async { Err(AdminError::Busy) })
    }

    fn warm(&self, request: WarmRequest) -> Reply<'_, Events<WarmEvent>> {
        self.note(format!("warm {request:?}"));
        Box::pin(async { Err(AdminError::Busy) })
    }

    fn plan_export(&self, request: ExportRequest) -> Reply<'_, ExportPlan> {
        self.note(format!("plan {:?}", request.images));
        Box::pin(async { Err(AdminError::NotFound("nothing".to_owned())) })
    }

    fn export(&self, request: ExportRequest) -> Reply<'_, Archive> {
        self.note(format!("export {:?}", request.images));
        Box::pin(async {
            let pieces = [Ok("a t".into()), Ok("ar".into())];
            Ok(Archive {
                len: Some(5),
                pieces: Box::pin(futures_util::stream::iter(pieces)),
            })
        })
    }

    fn import(&self, request: ImportRequest, archive: Archive) -> Reply<'_, Events<ImportEvent>> {
        Box::pin(async move {
            let mut bytes = 0;
            let mut pieces = archive.pieces;
            let mut message = "ended".to_owned();
            while let Some(piece) = pieces.next().await {
                match piece {
                    Ok(piece) => bytes += piece.len(),
                    Err(error) => message = error.kind().to_string(),
                }
            }
            self.note(format!("import {request:?} {:?} {bytes}", archive.len));
            let told = [Ok(ImportEvent::Failed { message })];
            Ok(Box::pin(futures_util::stream::iter(told)) as Events<ImportEvent>)
        })
    }

    fn verify<'a>(&'a self, image: Option<&'a str>) -> Reply<'a, Events<VerifyEvent>> {
        self.note(format!("verify {image:?}"));
        let events = self.events.lock().take();
        Box::pin(async move {
            let events = events.ok_or(AdminError::Busy)?;
            let told = futures_util::stream::unfold(events, |mut events| async {
                let event = events.recv().await?;
                Some((Ok(event), events))
            });
            Ok(Box::pin(told) as Events<VerifyEvent>)
        })
    }
}
