//! Compose files: the images of their services.

use std::rc::Rc;

use super::expand::{Escape, expand};
use super::node::{Node, Value};
use super::{Finds, ListError, Variables};

/// Services that extend services.
const EXTENDS: usize = 16;

/// Whether a document is a compose file and nothing of Kubernetes.
pub(super) fn is_one(document: &Node) -> bool {
    let is_map = |node: &Rc<Node>| matches!(node.value, Value::Map(_));
    document.get("services").is_some_and(is_map)
        && document.get("apiVersion").is_none()
        && document.get("kind").is_none()
}

pub(super) fn read(
    document: &Node,
    variables: &Variables<'_>,
    finds: &mut Finds,
) -> Result<(), ListError> {
    let Some(services) = document.get("services") else {
        return Err(ListError::at(
            document.line,
            "a compose file names its images under services; there are none here",
        ));
    };
    if let Some(include) = document.get("include") {
        finds.note(
            include.line,
            "the files that it includes are not read; name them as well",
        );
    }
    for (name, service) in services.entries() {
        if name == "<<" || name.starts_with("x-") {
            continue;
        }
        images_of(name, service, services, variables, finds)?;
    }
    Ok(())
}

fn images_of(
    name: &str,
    service: &Node,
    services: &Node,
    variables: &Variables<'_>,
    finds: &mut Finds,
) -> Result<(), ListError> {
    for volume in service
        .get("volumes")
        .map(|list| list.list())
        .unwrap_or_default()
    {
        let is_image = volume.get("type").and_then(|kind| kind.text()) == Some("image");
        if let Some(source) = volume.get("source").filter(|_| is_image) {
            image(source, variables, finds)?;
        }
    }
    let mut of = service;
    for _ in 0..EXTENDS {
        if of.get("build").is_some() {
            let dockerfile = dockerfile(of);
            finds.note(
                of.line,
                format!("{name} is built from {dockerfile}, and passed over; its base images are named there"),
            );
            return Ok(());
        }
        if let Some(named) = of.get("image") {
            return image(named, variables, finds);
        }
        let Some(extends) = of.get("extends") else {
            break;
        };
        if extends.get("file").is_some() {
            finds.note(
                extends.line,
                format!("{name} extends another file, and is passed over"),
            );
            return Ok(());
        }
        let other = extends.text().or_else(|| extends.get("service")?.text());
        let Some(base) = other.and_then(|other| services.get(other)) else {
            break;
        };
        of = base;
    }
    finds.note(
        service.line,
        format!("{name} has no image, and is passed over"),
    );
    Ok(())
}

fn image(node: &Node, variables: &Variables<'_>, finds: &mut Finds) -> Result<(), ListError> {
    let text = node.text().unwrap_or_default();
    let expanded = expand(text, variables, Escape::Doubled).map_err(|error| {
        ListError::at(
            node.line,
            format!("{error}; set it in the environment or in the .env beside the file"),
        )
    })?;
    finds.image(&expanded, node.line)
}

/// Where a service is built from, for people.
fn dockerfile(service: &Node) -> String {
    let Some(build) = service.get("build") else {
        return String::new();
    };
    let text = |key: &str| build.get(key).and_then(|value| value.text());
    match (build.text(), text("context"), text("dockerfile")) {
        (Some(context), ..) => format!("{context}/Dockerfile"),
        (None, context, dockerfile) => {
            let context = context.unwrap_or(".");
            format!("{context}/{}", dockerfile.unwrap_or("Dockerfile"))
        }
    }
}
