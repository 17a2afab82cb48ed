//! Which provider for a request: filters offers, ranks those that fit, and says why.
//!
//! Always true: the order depends on nothing but the request, the offers and what is passed in, and two equal candidates are ordered by their peer ids; every offer is either ranked with
//! a reason or rejected with one.
//!
//! It does not know the clock, the network, or what an offer's claims are worth.

use orien_protocol::money::Usdc;
use orien_protocol::offer::{Confinement, Offer};
use orien_protocol::time::Timestamp;

/// What a session is wanted for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Something a tool is good for, or a tool's id.
    pub(crate) capability: Option<String>,
    /// Tools that must all be there.
    pub(crate) tools: Vec<String>,
    /// Highest price per minute of each wanted tool.
    pub(crate) max_price_per_minute: Option<Usdc>,
    /// Where the machine has to be, as its provider states it.
    pub(crate) region: Option<String>,
    /// How well tools have to be confined.
    pub(crate) min_confinement: Option<Confinement>,
}

impl Wish {
    /// The wanted tools in words.
    fn subject(&self) -> String {
        match (&self.capability, self.tools.as_slice()) {
            (Some(capability), []) => capability.clone(),
            (Some(capability), tools) => format!("{capability} and {}", tools.join(", ")),
            (None, []) => "any tool".to_owned(),
            (None, tools) => tools.join(", "),
        }
    }
}

/// An offer, and what we know of its provider ourselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    /// Checked and signed by its provider.
    pub(crate) offer: &'a Offer,
    /// How long it took to answer us, milliseconds; none if we never asked.
    pub(crate) response_ms: Option<u64>,
}

/// An offer that fits.
#[derive(Clone, Debug)]
pub(crate) struct Ranked<'a> {
    /// The offer.
    pub(crate) offer: &'a Offer,
    /// Why it stands where it stands.
    pub(crate) why: String,
}

/// An offer that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejected<'a> {
    /// The offer.
    pub(crate) offer: &'a Offer,
    /// What it lacks.
    pub(crate) why: String,
}

/// The offers that fit, best first, and the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranking<'a> {
    /// Best first.
    pub(crate) ranked: Vec<Ranked<'a>>,
    /// In the order in which they came.
    pub(crate) rejected: Vec<Rejected<'a>>,
}

/// Sorts by the price per minute of what is wanted, then by the provider's lowest price, then by measured response time, then by free capacity.
pub(crate) fn rank<'a>(wish: &Wish, candidates: impl IntoIterator<Item = Candidate<'a>>, now: Timestamp) -> Ranking<'a> {
    let mut fitting = Vec::new();
    let mut ranking = Ranking::default();
    for candidate in candidates {
        match price_for(wish, candidate.offer, now) {
            Ok(price) => fitting.push((price, candidate)),
            Err(why) => ranking.rejected.push(Rejected { offer: candidate.offer, why }),
        }
    }
    fitting.sort_by_key(|(price, c)| {
        let free = std::cmp::Reverse(c.offer.capacity.free);
        (*price, floor(c.offer), c.response_ms.unwrap_or(u64::MAX), free, c.offer.provider)
    });
    let all = fitting.len();
    let subject = wish.subject();
    for (index, (price, candidate)) in fitting.iter().enumerate() {
        let equals = fitting.iter().filter(|(other, _)| other == price).count();
        let place = match (index, all) {
            (_, 1) => format!("the only provider that offers {subject}"),
            (0, _) if equals > 1 => format!("one of the {equals} cheapest of {all} that offer {subject}"),
            (0, _) => format!("the cheapest of {all} that offer {subject}"),
            (index, _) => format!("number {} of {all} that offer {subject}", index.saturating_add(1)),
        };
        let answered = candidate.response_ms.map_or(String::new(), |ms| format!("; answered in {ms} ms"));
        let why = format!(
            "{place}: {price} USDC per minute, {} of {} places free{answered}",
            candidate.offer.capacity.free, candidate.offer.capacity.sessions
        );
        ranking.ranked.push(Ranked { offer: candidate.offer, why });
    }
    ranking
}

/// The price per minute of what is wanted, or what the offer lacks.
fn price_for(wish: &Wish, offer: &Offer, now: Timestamp) -> Result<Usdc, String> {
    offer.freshness(now).map_err(|error| error.to_string())?;
    if offer.tools.is_empty() {
        return Err("it offers no tool".to_owned());
    }
    let missing: Vec<&str> = wish.tools.iter().map(String::as_str).filter(|id| offer.tool(id).is_none()).collect();
    if !missing.is_empty() {
        return Err(format!("it does not offer {}", missing.join(", ")));
    }
    let mut price = wish.tools.iter().filter_map(|id| offer.tool(id)).map(|tool| tool.price.per_minute).max();
    if let Some(capability) = &wish.capability {
        let able = offer.tools.iter().filter(|tool| tool.id == *capability || tool.capabilities.contains(capability));
        let cheapest = able.map(|tool| tool.price.per_minute).min().ok_or_else(|| format!("no tool of it is good for {capability}"))?;
        price = price.max(Some(cheapest));
    }
    let price = price.unwrap_or_else(|| floor(offer));
    if let Some(max) = wish.max_price_per_minute.filter(|max| price > *max) {
        return Err(format!("it asks {price} USDC per minute, more than {max}"));
    }
    if let Some(region) = wish.region.as_ref().filter(|region| !offer.region.as_ref().is_some_and(|r| r.eq_ignore_ascii_case(region))) {
        return Err(format!("it is not in {region}"));
    }
    if let Some(min) = wish.min_confinement.filter(|min| offer.confinement < *min) {
        return Err(format!("it confines tools at S{}, less than S{}", offer.confinement.level(), min.level()));
    }
    if offer.capacity.free == 0 {
        return Err("all its places are taken".to_owned());
    }
    Ok(price)
}

fn floor(offer: &Offer) -> Usdc {
    offer.tools.iter().map(|tool| tool.price.per_minute).min().unwrap_or(offer.price.per_minute)
}

#[cfg(test)]
mod tests {
    use orien_protocol::money::Price;
    use orien_protocol::offer::{Capacity, Hardware, Record, Tool};
    use orien_protocol::peer::PeerId;
    use orien_protocol::signing::Address;
    use orien_protocol::time::Millis;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn tool(id: &str, micros: u64, capabilities: &[&str]) -> Tool {
        Tool {
            id: id.to_owned(),
            name: id.to_owned(),
            description: String::new(),
            command: String::new(),
            parameters: Vec::new(),
            max_duration: Millis(1),
            cpu_millis: 1000,
            memory_bytes: 1,
            price: Price { per_minute: Usdc::from_micros(micros), call_fee: Usdc::ZERO },
            workspace_required: true,
            capabilities: capabilities.iter().map(|&c| c.to_owned()).collect(),
        }
    }

    fn offer(id: u8, free: u16, tools: Vec<Tool>) -> Offer {
        Offer {
            provider: PeerId::from_bytes([id; 32]),
            version: 1,
            issued_at: NOW,
            expires_at: NOW.plus(Millis(60_000)),
            label: format!("p{id}"),
            name: String::new(),
            description: String::new(),
            ens_name: None,
            region: Some("eu".to_owned()),
            binding: orien_protocol::binding::SignedBinding {
                by_peer: orien_protocol::signing::Signed::join(
                    orien_protocol::binding::Binding {
                        peer: PeerId::from_bytes([id; 32]),
                        money_key: Address::from_bytes([6; 20]),
                        principal: Address::from_bytes([5; 20]),
                        network: "test".parse().unwrap(),
                    },
                    orien_protocol::signing::PeerSignature::from_bytes([0; 64]),
                ),
                by_money_key: orien_protocol::signing::MoneySignature::from_bytes(&[0; 65]),
            },
            price: Price::default(),
            minimum_charge: Usdc::ZERO,
            metering_interval: Millis(5_000),
            tools,
            confinement: Confinement::S0,
            hardware: Hardware::default(),
            capacity: Capacity { sessions: 4, free, runs_per_session: 1 },
            record: Record::default(),
            addresses: Vec::new(),
        }
    }

    fn order(wish: &Wish, offers: &[(Offer, Option<u64>)]) -> (Vec<u8>, Vec<String>) {
        let candidates = offers.iter().map(|(offer, response_ms)| Candidate { offer, response_ms: *response_ms });
        let ranking = rank(wish, candidates, NOW);
        let ranked = ranking.ranked.iter().map(|r| r.offer.provider.as_bytes()[0]).collect();
        (ranked, ranking.rejected.iter().map(|r| r.why.clone()).collect())
    }

    fn build() -> Wish {
        Wish { tools: vec!["build".to_owned()], ..Wish::default() }
    }

    #[test]
    fn the_price_of_the_wanted_tool_decides_first_then_floor_response_and_free_places() {
        let offers = [
            (offer(1, 1, vec![tool("build", 100, &[])]), Some(9)),
            (offer(2, 1, vec![tool("build", 100, &[]), tool("cheap", 1, &[])]), None),
            (offer(3, 1, vec![tool("build", 100, &[])]), Some(5)),
            (offer(4, 3, vec![tool("build", 100, &[])]), Some(9)),
            (offer(5, 1, vec![tool("build", 90, &[])]), None),
            (offer(6, 1, vec![tool("build", 100, &[])]), Some(9)),
        ];
        assert_eq!(order(&build(), &offers).0, [5, 2, 3, 4, 1, 6]);
    }

    #[test]
    fn the_order_does_not_depend_on_the_order_of_offers() {
        let mut offers: Vec<(Offer, Option<u64>)> = (1..=5).map(|id| (offer(id, 1, vec![tool("build", 100, &[])]), None)).collect();
        let forwards = order(&build(), &offers).0;
        offers.reverse();
        assert_eq!(order(&build(), &offers).0, forwards);
    }

    #[test]
    fn what_does_not_fit_is_rejected_with_what_it_lacks() {
        let mut expired = offer(1, 1, vec![tool("build", 1, &[])]);
        expired.expires_at = NOW;
        let offers = [
            (expired, None),
            (offer(2, 0, vec![tool("build", 1, &[])]), None),
            (offer(3, 1, vec![tool("render", 1, &[])]), None),
            (offer(4, 1, vec![tool("build", 200, &[])]), None),
            (offer(5, 1, Vec::new()), None),
        ];
        let wish = Wish { max_price_per_minute: Some(Usdc::from_micros(100)), ..build() };
        let (ranked, rejected) = order(&wish, &offers);
        assert!(ranked.is_empty());
        for (why, part) in rejected.iter().zip(["expired", "places are taken", "does not offer build", "more than", "no tool"]) {
            assert!(why.contains(part), "{why}");
        }
        let elsewhere = Wish { region: Some("us".to_owned()), ..build() };
        assert!(order(&elsewhere, &[(offer(6, 1, vec![tool("build", 1, &[])]), None)]).1[0].contains("not in us"));
        let confined = Wish { min_confinement: Some(Confinement::S2), ..build() };
        assert!(order(&confined, &[(offer(6, 1, vec![tool("build", 1, &[])]), None)]).1[0].contains("S0, less than S2"));
    }

    #[test]
    fn a_capability_is_what_a_tool_says_it_is_good_for_or_its_id() {
        let offers = [
            (offer(1, 1, vec![tool("make", 5, &["compile"]), tool("gcc", 3, &["compile"])]), None),
            (offer(2, 1, vec![tool("compile", 4, &[])]), None),
            (offer(3, 1, vec![tool("render", 1, &[])]), None),
        ];
        let wish = Wish { capability: Some("compile".to_owned()), ..Wish::default() };
        assert_eq!(order(&wish, &offers).0, [1, 2]);
    }

    #[test]
    fn the_reason_says_how_many_were_compared_and_at_what_price() {
        let offers = [offer(1, 1, vec![tool("build", 100_000, &[])]), offer(2, 2, vec![tool("build", 250_000, &[])])];
        let candidates = offers.iter().map(|offer| Candidate { offer, response_ms: Some(3) });
        let ranking = rank(&build(), candidates, NOW);
        assert_eq!(ranking.ranked[0].why, "the cheapest of 2 that offer build: 0.1 USDC per minute, 1 of 4 places free; answered in 3 ms");
    }
}
