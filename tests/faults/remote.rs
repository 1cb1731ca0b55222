//! Git, as the whole agent meets it: away, slow, with packs that are broken on their way, and with a mirror
//! that is broken on the disk. What publishing alone meets is in `publishers`.

use std::{fs::OpenOptions, io::Write as _};

use trustweave_testbed::faulty_way::Fault;

use super::{
    ONE,
    matrix::Matrix,
    subject::{Subject, files_below},
};

const WHERE: &str = "git";

/// What the agent logs first when it can't fetch.
pub(crate) const UNREADABLE: &str = "the remote can't be read";

/// What may happen to git.
pub(crate) async fn faults(subject: &mut Subject, matrix: &mut Matrix) {
    let fault = (WHERE, "server killed, and started again");
    let row = subject.struck(fault, 2, async |subject| {
        let before = subject.logged(UNREADABLE);
        subject.federation.testbed.git.stop().await.unwrap();
        subject.change_all().await;
        subject.until_logged(UNREADABLE, before).await;
        subject.federation.testbed.git.start().await.unwrap();
        1
    });
    matrix.add(row.await);

    for (name, fault, least) in [
        ("server slow: 200 KiB a second", Fault::Slow, 4),
        ("server sends packs with a wrong byte", Fault::BrokenPack, 2),
    ] {
        let row = subject.struck((WHERE, name), 2, async |subject| {
            subject.way.set(fault);
            subject.change_all().await;
            let met = format!("`{name}` to strike {least} times");
            let struck = async || Ok((subject.way.struck() >= least).then_some(()));
            subject.until(&met, struck).await;
            subject.way.set(Fault::None)
        });
        matrix.add(row.await);
    }

    let fault = (WHERE, "mirror's packs overwritten under the agent");
    let row = subject.struck(fault, 2, async |subject| {
        let packs = overwrite_packs(subject);
        subject.change_all().await;
        packs
    });
    matrix.add(row.await);

    let fault = (WHERE, "mirror's packs overwritten while the agent is away");
    let row = subject.struck(fault, 2, async |subject| {
        subject.kill();
        let packs = overwrite_packs(subject);
        subject.change_all().await;
        subject.federation.start_agent(ONE).unwrap();
        packs
    });
    matrix.add(row.await);
}

/// Overwrites all of the mirror's packs with as much of something else; how many there are.
fn overwrite_packs(subject: &Subject) -> usize {
    let packs = files_below(&subject.state(), ".pack");
    assert!(!packs.is_empty(), "the mirror has no packs");
    for pack in &packs {
        let length = usize::try_from(pack.metadata().unwrap().len()).unwrap();
        // In place, as a disk that fails does: the agent may have it open. Git's packs are read-only,
        // which root is not kept by.
        let mut permissions = pack.metadata().unwrap().permissions();
        #[expect(clippy::permissions_set_readonly_false, reason = "on Unix, in a test")]
        permissions.set_readonly(false);
        std::fs::set_permissions(pack, permissions).unwrap();
        let mut file = OpenOptions::new().write(true).open(pack).unwrap();
        file.write_all(&vec![b'x'; length]).unwrap();
    }
    packs.len()
}
