//! A store that is opened again tells the same story, and one that cannot be right is refused.

use std::sync::Arc;

use orien_protocol::hash::Hash;
use orien_protocol::time::Millis;
use orien_settlement::books::{BooksError, Change, Restore};
use orien_settlement::desk::Desk;
use orien_settlement::evidence::CheckedClaim;
use orien_settlement::ledger::{LedgerAccount, PostError, Reason, Sums, Transfer, TransferId};
use orien_settlement::rail::LedgerRail;

use crate::batching::Setting;
use crate::kit::{Kit, Party, START, address, after, micros, request, usdc};

#[test]
fn sums_requests_and_batches_are_the_same_after_a_restart() {
    let it = Setting::new();
    it.claim(0, 1, "1");
    it.close(1, 1, "2");
    it.batch(1).unwrap();
    it.claim(2, 1, "0.5");
    it.desk.export("may", START).unwrap();
    let (sums, funds) = (it.desk.sums().unwrap(), it.desk.funds(&it.agent.principal).unwrap());
    let Setting { kit, folder, desk, agent, sessions, .. } = it;
    drop(desk);
    let desk = kit.desk(&folder);
    assert_eq!(desk.sums().unwrap(), sums);
    assert_eq!(desk.funds(&agent.principal).unwrap(), funds);
    let (terms, allowance, _) = &sessions[3];
    let again = desk.reserve(agent.peer.id(), request(3), terms.to_signed(), usdc("5"), after(Millis::from_secs(900))).unwrap();
    assert_eq!(again, *allowance);
    assert_eq!(desk.export("may", START).unwrap().len(), 2);
    assert_eq!(desk.sums().unwrap(), sums);
}

#[test]
fn a_channel_whose_story_is_over_still_answers_after_it_was_set_aside() {
    let it = Setting::new();
    it.close(0, 1, "2");
    it.batch(1).unwrap();
    let (terms, allowance, _) = &it.sessions[0];
    let state = it.desk.channel_state(&terms.channel()).unwrap();
    assert_eq!((state.redeemed, state.closed), (usdc("2"), true));
    let late = |number, total| it.desk.claim(it.kit.claim(terms, *allowance, (&it.agent, &it.providers[0]), number, total), START);
    assert!(late(1, usdc("2")).unwrap().closed);
    assert!(late(2, usdc("3")).is_err());
    assert!(it.desk.reserve(it.agent.peer.id(), request(50), terms.to_signed(), usdc("9"), START).is_err());
    assert_eq!(it.desk.funds(&it.agent.principal).unwrap().redeemed, usdc("2"));
}

#[test]
fn a_store_of_another_network_is_refused() {
    let it = Setting::new();
    let Setting { folder, desk, .. } = it;
    drop(desk);
    let other = Kit::named("other-net", 200);
    let error = Desk::open(&folder.path().join("settlement.redb"), Arc::clone(&other.house), Arc::new(LedgerRail)).unwrap_err();
    assert!(error.to_string().contains("belongs to network test-net"), "{error}");
}

fn restore(kit: &Kit, changes: &[Change], edit: impl Fn(&mut Change)) -> Result<(), BooksError> {
    let mut restore = Restore::new(Arc::clone(&kit.house), Arc::new(LedgerRail));
    for change in changes {
        let mut change = change.clone();
        edit(&mut change);
        for transfer in &change.transfers {
            restore.transfer(transfer)?;
        }
        for (account, record) in change.accounts {
            restore.account(account, record);
        }
        for record in change.channels {
            restore.channel(&record)?;
        }
    }
    restore.finish().map(|_| ())
}

#[test]
fn books_that_do_not_add_up_are_refused() {
    let (kit, agent, provider) = (Kit::new(), Party::new(1), Party::new(2));
    let mut books = kit.books();
    let grant = books.grant("g", &agent.grant(usdc("10")), START).unwrap();
    books.apply(&grant).unwrap();
    let terms = kit.terms(&agent, &provider, 1);
    let (reserve, _) = books.reserve(agent.peer.id(), request(1), &terms, usdc("4"), START).unwrap();
    let changes = [grant, reserve];
    restore(&kit, &changes, |_| ()).unwrap();
    let lost = restore(&kit, &changes, |change| change.transfers.retain(|transfer| transfer.reason != Reason::Grant));
    assert!(matches!(lost, Err(BooksError::Post(PostError::Number { .. }))), "{lost:?}");
    let less = restore(&kit, &changes, |change| change.transfers.iter_mut().for_each(|transfer| transfer.amount = usdc("4.5")));
    assert!(matches!(less, Err(BooksError::Disagree { .. })), "{less:?}");
    let more = restore(&kit, &changes, |change| change.channels.iter_mut().for_each(|record| record.redeemed = usdc("1")));
    assert!(matches!(more, Err(BooksError::Disagree { .. })), "{more:?}");
    let absurd = restore(&kit, &changes, |change| change.channels.iter_mut().for_each(|record| record.redeemed = usdc("9")));
    assert!(matches!(absurd, Err(BooksError::Damaged(_))), "{absurd:?}");
    let richer = restore(&kit, &changes, |change| change.accounts.iter_mut().for_each(|(_, record)| record.granted = usdc("11")));
    assert!(matches!(richer, Err(BooksError::Disagree { .. })), "{richer:?}");
}

#[test]
fn shares_that_went_to_the_wrong_side_are_noticed_although_the_sum_is_right() {
    let (kit, agent, provider) = (Kit::new(), Party::new(1), Party::new(2));
    let mut books = kit.books();
    let mut changes = vec![books.grant("g", &agent.grant(usdc("10")), START).unwrap()];
    books.apply(&changes[0]).unwrap();
    let terms = kit.terms(&agent, &provider, 1);
    let (reserve, allowance) = books.reserve(agent.peer.id(), request(1), &terms, usdc("4"), START).unwrap();
    books.apply(&reserve).unwrap();
    let claim = kit.claim(&terms, allowance, (&agent, &provider), 1, usdc("3"));
    let (claim, _) = books.claim(&CheckedClaim::check(claim, kit.house.facts()).unwrap(), START).unwrap();
    changes.extend([reserve, claim]);
    // The last record of a channel is the one that a store holds.
    changes[1].channels.clear();
    restore(&kit, &changes, |_| ()).unwrap();
    let payee = LedgerAccount::Payee(provider.principal);
    for (one, other) in
        [(LedgerAccount::Platform, LedgerAccount::Reserve), (payee, LedgerAccount::Platform), (payee, LedgerAccount::Payee(address(9)))]
    {
        let moved = restore(&kit, &changes, |change| {
            for transfer in &mut change.transfers {
                if transfer.credit == one {
                    transfer.credit = other;
                }
            }
        });
        assert!(matches!(moved, Err(BooksError::Disagree { .. })), "{one:?}: {moved:?}");
    }
}

#[test]
fn a_transfer_that_overdraws_or_moves_nothing_is_not_posted() {
    let mut ledger = orien_settlement::ledger::Ledger::default();
    let (one, two) = (LedgerAccount::Agent(address(1)), LedgerAccount::Agent(address(2)));
    let transfer = |id, debit, credit, amount| Transfer {
        id: TransferId(id),
        at: START,
        debit,
        credit,
        amount: micros(amount),
        reason: Reason::Grant,
    };
    ledger.post(&transfer(1, LedgerAccount::Operator, one, 5)).unwrap();
    for wrong in [
        transfer(2, one, two, 6),
        transfer(2, one, one, 1),
        transfer(2, one, two, 0),
        transfer(2, one, LedgerAccount::Operator, 1),
        transfer(3, one, two, 1),
        transfer(1, one, two, 1),
    ] {
        assert!(ledger.post(&wrong).is_err(), "{wrong:?}");
    }
    assert_eq!((ledger.balance(&one), ledger.balance(&two), ledger.newest()), (5, 0, 1));
    ledger.post(&transfer(2, one, two, 5)).unwrap();
    assert_eq!(ledger.newest(), 2);
    assert!(ledger.sums().balanced());
}

#[test]
fn sums_are_balanced_only_if_every_granted_micro_usdc_stands_somewhere_once() {
    let whole = Sums { granted: 21, available: 1, reserved: 2, earned: 3, platform: 4, reserve: 5, settled: 6, ..Sums::default() };
    assert!(whole.balanced());
    for wrong in [
        Sums { granted: 20, ..whole },
        Sums { granted: 22, ..whole },
        Sums { available: 0, ..whole },
        Sums { reserved: 0, ..whole },
        Sums { earned: 0, ..whole },
        Sums { platform: 0, ..whole },
        Sums { reserve: 0, ..whole },
        Sums { settled: 0, ..whole },
        Sums { available: u128::MAX, ..whole },
    ] {
        assert!(!wrong.balanced(), "{wrong:?}");
    }
}

#[test]
fn a_channel_spent_to_its_ceiling_and_the_chain_of_batches_outlive_a_restart() {
    let it = Setting::new();
    it.claim(0, 1, "5");
    let first = it.batch(1).unwrap();
    let Setting { kit, folder, desk, agent, providers, sessions } = it;
    drop(desk);
    let it = Setting { desk: kit.desk(&folder), kit, folder, agent, providers, sessions };
    assert_eq!(it.desk.channel_state(&it.sessions[0].0.channel()).unwrap().redeemed, usdc("5"));
    it.claim(1, 1, "1");
    let second = it.batch(2).unwrap();
    assert_ne!(second.summary.unverified().previous, Hash::ZERO);
    assert_eq!(second.summary.unverified().previous, first.summary.unverified().content_id(&it.kit.network));
}
