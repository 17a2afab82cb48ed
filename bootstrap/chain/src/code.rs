//! The escrow's compiled code: what is deployed, and how code on a chain is compared with it.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::error::ChainError;

/// ABI, bytecode and the places of what is fixed at deployment, made by `settlement/contracts/check --write`.
pub(crate) const ARTIFACT: &str = include_str!("../../../settlement/contracts/Escrow.json");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Artifact {
    bytecode: String,
    deployed_bytecode: String,
    /// Where values that are fixed at deployment stand in the deployed code.
    immutables: Vec<[usize; 2]>,
}

struct Code {
    creation: Vec<u8>,
    deployed: Vec<u8>,
    immutables: Vec<[usize; 2]>,
}

static CODE: LazyLock<Option<Code>> = LazyLock::new(|| {
    let artifact: Artifact = serde_json::from_str(ARTIFACT).ok()?;
    let bytes = |text: &str| hex::decode(text.strip_prefix("0x")?).ok();
    Some(Code { creation: bytes(&artifact.bytecode)?, deployed: bytes(&artifact.deployed_bytecode)?, immutables: artifact.immutables })
});

fn code() -> Result<&'static Code, ChainError> {
    CODE.as_ref().ok_or(ChainError::Artifact)
}

/// The code that a deployment sends, before its arguments.
pub(crate) fn creation() -> Result<&'static [u8], ChainError> {
    Ok(&code()?.creation)
}

/// Whether some code is the escrow's, whatever was fixed when it was deployed.
pub(crate) fn is_escrow(found: &[u8]) -> Result<bool, ChainError> {
    let code = code()?;
    if found.len() != code.deployed.len() {
        return Ok(false);
    }
    let mut masked = found.to_vec();
    for [start, length] in &code.immutables {
        if let Some(place) = start.checked_add(*length).and_then(|end| masked.get_mut(*start..end)) {
            place.fill(0);
        }
    }
    Ok(masked == code.deployed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployed_code_is_known_whatever_its_fixed_values_are_and_nothing_else_is() {
        let code = code().unwrap();
        assert!(code.immutables.len() > 10 && code.creation.len() > code.deployed.len());
        let mut deployed = code.deployed.clone();
        deployed[code.immutables[0][0]] = 7;
        assert!(is_escrow(&deployed).unwrap());
        deployed[0] ^= 1;
        assert!(!is_escrow(&deployed).unwrap());
        assert!(!is_escrow(&[]).unwrap());
        assert!(!is_escrow(&code.deployed[1..]).unwrap());
    }

    #[test]
    fn the_places_of_fixed_values_hold_nothing_in_the_artifact() {
        let code = code().unwrap();
        for [start, length] in &code.immutables {
            assert!(code.deployed[*start..start + length].iter().all(|byte| *byte == 0));
        }
    }
}
