//! The admin token: a file that its owner alone can read, made at the first start.

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::files::{Disk, Files, at, open_regular};
use super::layout::{Layout, PartialId};
use super::{OpenError, Store};

impl Store {
    /// The secret that administration needs. Makes it where there is none. Blocks shortly.
    pub fn admin_token(&self) -> Result<SecretString, OpenError> {
        let path = self.layout.admin_token();
        let failed = |action| {
            let path = path.clone();
            move |source| OpenError::Io {
                action,
                path,
                source,
            }
        };
        if let Some(token) = read(&*self.files, &path).map_err(failed("read"))? {
            return Ok(token);
        }
        let token = fresh().map_err(failed("make a secret for"))?;
        write(&*self.files, &self.layout, &token).map_err(failed("write"))?;
        Ok(token)
    }
}

/// The secret of the data directory; `None` where no server has made one yet. [`io::ErrorKind::PermissionDenied`] for
/// whoever is not its owner.
pub fn read_admin_token(data_dir: &Path) -> io::Result<Option<SecretString>> {
    let path = Layout::new(data_dir.to_owned()).admin_token();
    // Not through `open_regular`, for which a file that may not be read is none.
    match File::open(&path) {
        Ok(_) => read(&Disk, &path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at("read", &path, &error)),
    }
}

fn read(files: &dyn Files, path: &Path) -> io::Result<Option<SecretString>> {
    let Some((file, stat)) = open_regular(files, path)? else {
        return Ok(None);
    };
    let len = match usize::try_from(stat.len) {
        Ok(len) if len <= LONGEST => len,
        _ => return Ok(None),
    };
    let mut bytes = vec![0; len];
    files.read_at(&file, 0, &mut bytes)?;
    let token = bytes.trim_ascii();
    if token.len() < SHORTEST || !token.iter().all(u8::is_ascii_graphic) {
        tracing::warn!(path = %path.display(), "not a token of 16 visible characters or more; it is made anew");
        return Ok(None);
    }
    if file.metadata()?.permissions().mode() & OTHERS != 0 {
        tracing::warn!(path = %path.display(), "others than its owner can read it; set its mode to 600");
    }
    Ok(Some(
        token
            .iter()
            .map(|&b| char::from(b))
            .collect::<String>()
            .into(),
    ))
}

fn fresh() -> io::Result<SecretString> {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(const_hex::encode(bytes).into())
}

fn write(files: &dyn Files, layout: &Layout, token: &SecretString) -> io::Result<()> {
    let temp = layout.partial(PartialId::random());
    let file = files.create_private(&temp)?;
    files.write_at(&file, 0, token.expose_secret().as_bytes())?;
    files.sync_data(&file)?;
    files.rename(&temp, &layout.admin_token())?;
    files.sync_dir(layout.root())
}

const SHORTEST: usize = 16;
const LONGEST: usize = 4096;
/// Mode bits of group and others.
const OTHERS: u32 = 0o077;
