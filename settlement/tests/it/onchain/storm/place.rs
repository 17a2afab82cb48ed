//! Where in the life of a transaction settlement is: what the storm aims its kills at, and what it counts.

/// A place to be killed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Place {
    /// Nothing is under way.
    #[default]
    Nothing,
    /// Nonce and claims are chosen.
    Planned,
    /// Bytes are on disk that no node has seen for sure.
    Signed,
    /// A node may have it.
    Submitted,
    /// A second one for the same nonce is signed, with higher fees.
    Raised,
    /// One that carries nothing is signed, to use the nonce up.
    Emptied,
    /// It is in a block that is not final.
    Included,
    /// It was in a block, and the block is gone.
    TakenBack,
    /// It was just found in a final block.
    Final,
    /// It was just found in a final block that did not carry it out.
    Reverted,
    /// The one that carries nothing was just found in a final block.
    Replaced,
}

impl Place {
    pub(super) const ALL: [Self; 11] = [
        Self::Nothing,
        Self::Planned,
        Self::Signed,
        Self::Submitted,
        Self::Raised,
        Self::Emptied,
        Self::Included,
        Self::TakenBack,
        Self::Final,
        Self::Reverted,
        Self::Replaced,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Planned => "planned",
            Self::Signed => "signed",
            Self::Submitted => "submitted",
            Self::Raised => "raised",
            Self::Emptied => "emptied",
            Self::Included => "included",
            Self::TakenBack => "taken back",
            Self::Final => "final",
            Self::Reverted => "reverted",
            Self::Replaced => "replaced",
        }
    }

    pub(super) fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|place| place.name() == text)
    }

    /// Whether it lasts for as long as the chain stands still, so that somebody else can see it and strike.
    pub(super) const fn lasts(self) -> bool {
        matches!(self, Self::Submitted | Self::Raised | Self::Emptied | Self::Included | Self::TakenBack)
    }

    /// Whether the transaction is over.
    pub(super) const fn is_end(self) -> bool {
        matches!(self, Self::Final | Self::Reverted | Self::Replaced)
    }
}

/// A transaction under way, as far as it says where it is.
#[derive(Clone, Debug)]
pub(super) struct Leg<'a> {
    pub(super) nonce: u64,
    /// As [`Stage::name`](orien_settlement::paying::Stage::name) has it.
    pub(super) stage: &'a str,
    pub(super) attempts: usize,
    /// Whether the newest attempt carries nothing.
    pub(super) is_empty: bool,
}

/// A place, and of which transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Spot {
    pub(super) place: Place,
    pub(super) nonce: Option<u64>,
    attempts: usize,
}

impl Spot {
    /// What somebody says, who knows the attempts.
    pub(super) const fn said(place: Place, nonce: Option<u64>) -> Self {
        Self { place, nonce, attempts: 0 }
    }

    /// The spot after this one. `ended` gives the stage in which the newest transaction ended.
    pub(super) fn moved(self, leg: Option<&Leg<'_>>, ended: impl FnOnce() -> Option<String>) -> Self {
        let Some(leg) = leg else {
            let place = self.nonce.and_then(|_| Place::named(&ended()?)).filter(|place| place.is_end());
            return Self { place: place.unwrap_or_default(), nonce: None, attempts: 0 };
        };
        let same = self.nonce == Some(leg.nonce) && self.attempts == leg.attempts;
        let place = match leg.stage {
            "planned" => Place::Planned,
            "included" => Place::Included,
            _ if same && matches!(self.place, Place::Included | Place::TakenBack) => Place::TakenBack,
            _ if leg.is_empty => Place::Emptied,
            _ if leg.attempts > 1 => Place::Raised,
            "signed" => Place::Signed,
            _ => Place::Submitted,
        };
        Self { place, nonce: Some(leg.nonce), attempts: leg.attempts }
    }
}
