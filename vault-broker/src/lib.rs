//! The key broker: challenge, verification, appraisal, release, limits, release log. docs/KEY_RELEASE.md sections 4 to 7.
