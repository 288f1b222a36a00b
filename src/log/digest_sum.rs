//! The sum behind the state digest, which a compacted log can go on from.

use super::codec;
use super::error::LogError;
use super::record::Recorded;

/// A sum over records that forgets their order: to each belongs a vector of 1024 numbers, made by
/// BLAKE3 from its task key and its event, and vectors are added modulo 2^16 (LtHash16, Bellare and
/// Micciancio 1997; Lewi et al. 2019).
#[derive(Clone, PartialEq)]
pub(crate) struct DigestSum([u16; SUM_LANES]);

const SUM_LANES: usize = 1024;

impl Default for DigestSum {
    fn default() -> DigestSum {
        DigestSum([0; SUM_LANES])
    }
}

impl std::fmt::Debug for DigestSum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DigestSum({})", self.digest())
    }
}

impl DigestSum {
    /// Adds a record.
    ///
    /// # Errors
    /// When its event cannot be encoded.
    pub fn add(&mut self, record: &Recorded) -> Result<(), LogError> {
        let key = record.key.as_ref().map_or("-", |key| key.as_str());
        let body = codec::encode(&record.event).map_err(LogError::Read)?;
        let mut hasher = blake3::Hasher::new_derive_key("gradus state digest v2");
        hasher.update(key.as_bytes()).update(blake3::hash(&body).as_bytes());
        let mut bytes = [0; 2 * SUM_LANES];
        hasher.finalize_xof().fill(&mut bytes);
        let (numbers, _) = bytes.as_chunks::<2>();
        for (sum, number) in self.0.iter_mut().zip(numbers) {
            *sum = sum.wrapping_add(u16::from_le_bytes(*number));
        }
        Ok(())
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    /// 64 hex digits.
    pub fn digest(&self) -> String {
        blake3::hash(&self.bytes()).to_hex().to_string()
    }
}

impl serde::Serialize for DigestSum {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let hex: String = self.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        to.serialize_str(&hex)
    }
}

impl<'de> serde::Deserialize<'de> for DigestSum {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<DigestSum, D::Error> {
        let hex = String::deserialize(from)?;
        let (digits, _) = hex.as_bytes().as_chunks::<4>();
        let mut sum = DigestSum::default();
        if hex.len() != 4 * SUM_LANES {
            return Err(serde::de::Error::custom("a sum has 4096 hex digits"));
        }
        for (lane, digits) in sum.0.iter_mut().zip(digits) {
            let digits = std::str::from_utf8(digits).map_err(serde::de::Error::custom)?;
            let number = u16::from_str_radix(digits, 16).map_err(serde::de::Error::custom)?;
            *lane = number.swap_bytes();
        }
        Ok(sum)
    }
}
