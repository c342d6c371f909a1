//! The forms of other tools: in-toto Statement v1 with SLSA's provenance v1, and CycloneDX 1.6. Facts of the manifest, and nothing guessed.

use serde_json::{Map, Value, json};
use vault_attest::time::rfc3339;
use vault_core::header::hex;
use vault_core::manifest::{Entry, Manifest};
use vault_core::provenance::Provenance;

/// An in-toto statement about the model's files.
pub fn slsa(manifest: &Manifest, provenance: &Provenance, id: &str) -> Value {
    let subject: Vec<_> =
        manifest.entries.iter().map(|entry| json!({ "name": entry.path, "digest": digests(entry) })).collect();
    let mut dependencies = Vec::new();
    if let Some(source) = &provenance.source {
        let (uri, commit) =
            source.rsplit_once('@').map_or((source.as_str(), None), |(uri, commit)| (uri, Some(commit)));
        let mut dependency = json!({ "uri": source });
        // A git commit's id, and not just any text behind an @.
        if let Some(commit) = commit.filter(|c| uri.starts_with("git+") && [40, 64].contains(&c.len()) && is_hex(c)) {
            dependency["digest"] = json!({ "gitCommit": commit });
        }
        dependencies.push(dependency);
    }
    for dataset in &provenance.datasets {
        for file in &dataset.files {
            let name = format!("dataset/{}/{}", dataset.name, file.path);
            dependencies.push(json!({ "name": name, "digest": { "blake3": hex(&*file.blake3) } }));
        }
    }
    let mut metadata = Map::from_iter([("invocationId".to_owned(), json!(id))]);
    if let Some(time) = time(manifest) {
        metadata.insert("finishedOn".into(), json!(time));
    }
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subject,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:mvault:seal:v1",
                "externalParameters": { "name": manifest.name, "modelVersion": manifest.model_version },
                "internalParameters": { "tool": manifest.tool },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": { "id": provenance.builder.as_deref().unwrap_or("urn:mvault:builder:not-recorded") },
                "metadata": metadata,
            },
        },
    })
}

/// A bill of materials of a machine-learning model.
pub fn cyclonedx(manifest: &Manifest, provenance: &Provenance, id: &str) -> Value {
    let datasets: Vec<_> =
        provenance.datasets.iter().map(|d| json!({ "ref": format!("dataset:{}", d.name) })).collect();
    let mut card = json!({});
    if !datasets.is_empty() {
        card = json!({ "modelParameters": { "datasets": datasets } });
    }
    let files = manifest.entries.iter().map(|entry| {
        json!({ "type": "file", "bom-ref": format!("file:{}", entry.path), "name": entry.path, "hashes": hashes(entry) })
    });
    let data = provenance.datasets.iter().map(|d| {
        let members = d.files.iter().map(|file| {
            json!({
                "type": "file", "bom-ref": format!("dataset:{}/{}", d.name, file.path), "name": file.path,
                "hashes": [{ "alg": "BLAKE3", "content": hex(&*file.blake3) }],
            })
        });
        json!({
            "type": "data", "bom-ref": format!("dataset:{}", d.name), "name": d.name,
            "hashes": [{ "alg": "BLAKE3", "content": hex(&d.digest()) }],
            "data": [{ "type": "dataset", "name": d.name }],
            "components": members.collect::<Vec<_>>(),
        })
    });
    let mut model = json!({
        "type": "machine-learning-model", "bom-ref": "model", "name": manifest.name,
        "version": manifest.model_version.to_string(), "modelCard": card,
        "properties": [{ "name": "mvault:artifact", "value": id }],
    });
    if let Some(source) = &provenance.source {
        model["externalReferences"] = json!([{ "type": "vcs", "url": source }]);
    }
    let (tool, version) = manifest.tool.split_once(' ').unwrap_or((&manifest.tool, ""));
    let mut metadata = json!({
        "tools": { "components": [{ "type": "application", "name": tool, "version": version }] },
        "component": model,
    });
    if let Some(time) = time(manifest) {
        metadata["timestamp"] = json!(time);
    }
    json!({
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "serialNumber": format!("urn:uuid:{}", uuid(id)),
        "metadata": metadata, "components": files.chain(data).collect::<Vec<_>>(),
    })
}

fn digests(entry: &Entry) -> Value {
    let mut digests = json!({ "blake3": hex(&*entry.blake3) });
    if let Some(sha256) = &entry.sha256 {
        digests["sha256"] = json!(hex(&**sha256));
    }
    digests
}

fn hashes(entry: &Entry) -> Value {
    let sha256 = entry.sha256.as_ref().map(|digest| json!({ "alg": "SHA-256", "content": hex(&**digest) }));
    let blake3 = json!({ "alg": "BLAKE3", "content": hex(&*entry.blake3) });
    sha256.into_iter().chain([blake3]).collect()
}

/// When it was sealed, by the sealer's clock.
fn time(manifest: &Manifest) -> Option<String> {
    manifest.sealed_at.map(rfc3339)
}

/// A UUID of the artifact's id: version 8, whose bits are anyone's to define (RFC 9562).
fn uuid(id: &str) -> String {
    let digits: Vec<char> = id.chars().filter(char::is_ascii_hexdigit).collect();
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default().iter().collect::<String>();
    format!("{}-{}-8{}-8{}-{}", part(0, 8), part(8, 12), part(12, 15), part(15, 18), part(18, 30))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}
