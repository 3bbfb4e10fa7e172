//! Which images are never evicted: those that the configuration names, and those pinned by command.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::time::SystemTime;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::config::Pin;
use crate::oci::{Digest, Tag};
use crate::proxy::Place;
use crate::store::{Note, PassedOver, Store};

use super::AdminError;
use super::digests::DigestSet;
use super::model::{PinChange, PinList};
use super::walk;

/// The pins of a data directory.
#[derive(Debug)]
pub struct Pins {
    config: Vec<Pin>,
    command: RwLock<Vec<Pin>>,
    /// One change at a time, so that the last one written is the one in force.
    changing: tokio::sync::Mutex<()>,
}

/// What pinned images led to at a time.
#[derive(Debug)]
pub struct Protected {
    parts: DigestSet,
    as_of: SystemTime,
}

impl Protected {
    /// Whether a pinned image leads to this blob or manifest.
    pub fn keeps(&self, digest: &Digest) -> bool {
        self.parts.contains(digest)
    }

    /// All of them.
    pub(super) fn into_parts(self) -> DigestSet {
        self.parts
    }

    /// Since when it may lead to more.
    pub fn as_of(&self) -> SystemTime {
        self.as_of
    }

    /// How many blobs and manifests they are.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether nothing is protected.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

/// `pins.json`.
#[derive(Serialize, Deserialize)]
struct Kept {
    pins: Vec<String>,
}

/// Most pins by command: each is compared with every image.
const MOST_PINS: usize = 1024;

impl Pins {
    /// The pins of `config`, and those that the data directory keeps. Blocks shortly.
    pub(super) fn load(config: Vec<Pin>, store: &Store) -> io::Result<Self> {
        let kept = match store.get_note(Note::Pins)? {
            Some(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                warn!(%error, "pins.json is damaged: nothing is pinned by command; pin again");
                Kept { pins: Vec::new() }
            }),
            None => Kept { pins: Vec::new() },
        };
        let read = |text: &String| {
            let pin = text.parse::<Pin>();
            pin.inspect_err(|error| warn!(pin = text, %error, "a pin in pins.json is passed over"))
                .ok()
        };
        Ok(Self {
            config,
            command: RwLock::new(kept.pins.iter().filter_map(read).collect()),
            changing: tokio::sync::Mutex::default(),
        })
    }

    /// Whether the image is pinned.
    pub(super) fn are_for(&self, place: &Place, tag: Option<&Tag>, digest: &Digest) -> bool {
        self.any(|pin| pin.matches(&place.upstream, &place.repository, tag, digest))
    }

    /// Every blob and manifest that pinned images lead to at `now`, so that eviction leaves them alone. Reads the manifests of
    /// repositories with a pin only. Blocks for as long as those are many; fails rather than leave something out, but not over
    /// what cannot be read and holds nothing that is pinned.
    pub fn protected(&self, store: &Store, now: SystemTime) -> io::Result<Protected> {
        let mut parts = DigestSet::default();
        if !self.any(|_| true) {
            return Ok(Protected { parts, as_of: now });
        }
        let mut in_repository = |upstream, repository| {
            if !self.any(|pin| pin.matches_repository(&upstream, &repository)) {
                return Ok(ControlFlow::Continue(()));
            }
            let place = Place {
                upstream,
                repository,
            };
            walk::each_image_of(store, &place, None, &mut |image| {
                let tag = image.tag.as_ref().map(|(tag, _)| tag);
                if self.are_for(&place, tag, &image.digest) {
                    image.each_part(store, &mut |digest| {
                        parts.insert(digest);
                    })?;
                }
                Ok(ControlFlow::Continue(()))
            })
        };
        let mut passed_over = |what| match what {
            PassedOver::Unreadable(path, error) => {
                let name = store.repositories_below(&path);
                if self.any(|pin| pin.may_match_below(&name)) {
                    return Err(error);
                }
                warn!(%error, "a directory of records cannot be read; nothing in it is pinned");
                Ok(())
            }
            PassedOver::Foreign(_) => Ok(()),
        };
        store.each_readable_repository(None, &mut in_repository, &mut passed_over)?;
        Ok(Protected { parts, as_of: now })
    }

    fn any(&self, holds: impl Fn(&Pin) -> bool) -> bool {
        self.config.iter().any(&holds) || self.command.read().iter().any(&holds)
    }

    pub(super) fn list(&self) -> PinList {
        let written = |pins: &[Pin]| pins.iter().map(ToString::to_string).collect();
        PinList {
            config: written(&self.config),
            command: written(&self.command.read()),
        }
    }

    /// Adds a pin. Durable on return.
    pub(super) async fn add(&self, pin: Pin, store: &Store) -> Result<PinChange, AdminError> {
        let text = pin.to_string();
        let change = |pins: &mut Vec<Pin>| {
            if pins.iter().any(|one| one.to_string() == text) {
                return Ok(false);
            }
            if pins.len() >= MOST_PINS {
                return Err(AdminError::Invalid(format!(
                    "there are {MOST_PINS} pins already; a pattern can stand for many"
                )));
            }
            pins.push(pin.clone());
            Ok(true)
        };
        let changed = self.change(change, store).await?;
        Ok(PinChange { pin: text, changed })
    }

    /// Adds pins, all or none, of which `added` are those that were not there. Durable on return. Where it fails, they may
    /// be there after a restart.
    pub(super) async fn add_all(
        &self,
        new: Vec<Pin>,
        added: &mut Vec<Pin>,
        store: &Store,
    ) -> Result<(), AdminError> {
        let change = |pins: &mut Vec<Pin>| {
            let before = pins.len();
            extend(pins, &new)?;
            *added = pins.iter().skip(before).cloned().collect();
            Ok(!added.is_empty())
        };
        self.change(change, store).await.map(|_| ())
    }

    /// Takes pins away, those included that may be there after a restart only. Durable on return.
    pub(super) async fn remove_all(&self, old: &[Pin], store: &Store) -> Result<(), AdminError> {
        let old: HashSet<String> = old.iter().map(ToString::to_string).collect();
        let change = |pins: &mut Vec<Pin>| {
            pins.retain(|one| !old.contains(&one.to_string()));
            Ok(!old.is_empty())
        };
        self.change(change, store).await.map(|_| ())
    }

    /// Fails where these could not be added now.
    pub(super) fn have_room(&self, new: &[Pin]) -> Result<(), AdminError> {
        let mut pins = self.command.read().clone();
        extend(&mut pins, new)
    }

    /// Takes a pin away. Durable on return.
    pub(super) async fn remove(&self, pin: &Pin, store: &Store) -> Result<PinChange, AdminError> {
        let text = pin.to_string();
        if self.config.iter().any(|one| one.to_string() == text) {
            return Err(AdminError::Invalid(format!(
                "{text} is pinned by the configuration; take it out of [cache] pin and restart"
            )));
        }
        let change = |pins: &mut Vec<Pin>| {
            let before = pins.len();
            pins.retain(|one| one.to_string() != text);
            Ok(pins.len() < before)
        };
        if !self.change(change, store).await? {
            let others = self.list().command.join(", ");
            return Err(AdminError::NotFound(format!(
                "{text} is not a pin; those made by command are: {}",
                if others.is_empty() { "none" } else { &others }
            )));
        }
        Ok(PinChange {
            pin: text,
            changed: true,
        })
    }

    /// Changes the pins once they are written; whether there was something to change.
    async fn change(
        &self,
        change: impl FnOnce(&mut Vec<Pin>) -> Result<bool, AdminError>,
        store: &Store,
    ) -> Result<bool, AdminError> {
        let _turn = self.changing.lock().await;
        let mut pins = self.command.read().clone();
        if !change(&mut pins)? {
            return Ok(false);
        }
        let kept = Kept {
            pins: pins.iter().map(ToString::to_string).collect(),
        };
        let bytes = serde_json::to_vec_pretty(&kept).map_err(io::Error::from)?;
        store.put_note(Note::Pins, bytes).await?;
        *self.command.write() = pins;
        Ok(true)
    }
}

/// Adds those that are not there, unless they become too many.
fn extend(pins: &mut Vec<Pin>, new: &[Pin]) -> Result<(), AdminError> {
    let before = pins.len();
    let mut known: HashSet<String> = pins.iter().map(ToString::to_string).collect();
    let new = new.iter().filter(|pin| known.insert(pin.to_string()));
    pins.extend(new.cloned());
    if pins.len() > MOST_PINS {
        return Err(AdminError::Invalid(format!(
            "{} more pins would be more than {MOST_PINS}: import with --no-pin, and pin with a pattern, which can stand \
             for many",
            pins.len() - before
        )));
    }
    Ok(())
}
