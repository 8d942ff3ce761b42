//! Tink keys by the command line: made by template, rotated, handed out as one keyset, and that keyset used.

use super::{Stage, text};
use claviger_crypto::tink::{
    Aead, DeterministicAead, Family, HybridDecrypt, HybridEncrypt, Keyset, Mac, Signer, StreamingAead, Template, Verifier,
};

/// Makes something with the keyset and opens or verifies it with another: the id of the key that fits.
fn use_with(family: Family, maker: &Keyset, reader: &Keyset) -> u32 {
    let (plain, data) = (b"hunter2", b"about");
    let opened = match family {
        Family::Aead => Aead::new(reader).unwrap().decrypt(&Aead::new(maker).unwrap().encrypt(plain, data).unwrap(), data),
        Family::DeterministicAead => {
            DeterministicAead::new(reader).unwrap().decrypt(&DeterministicAead::new(maker).unwrap().encrypt(plain, data).unwrap(), data)
        }
        Family::Hybrid => {
            let made = HybridEncrypt::new(&maker.public().unwrap()).unwrap().encrypt(plain, data).unwrap();
            HybridDecrypt::new(reader).unwrap().decrypt(&made, data)
        }
        Family::StreamingAead => {
            StreamingAead::new(reader).unwrap().decrypt(&StreamingAead::new(maker).unwrap().encrypt(plain, data).unwrap(), data)
        }
        Family::Mac => return Mac::new(reader).unwrap().verify(&Mac::new(maker).unwrap().compute(plain), plain).unwrap(),
        Family::Signature => {
            return Verifier::new(reader).unwrap().verify(&Signer::new(maker).unwrap().sign(plain).unwrap(), plain).unwrap();
        }
    };
    let opened = opened.unwrap();
    assert_eq!(opened.plain.expose(), plain);
    opened.key_id
}

#[test]
fn keys_of_every_template_are_made_rotated_and_handed_out_as_one_keyset() {
    let stage = Stage::new();
    for template in Template::ALL {
        let id = format!("{}{}", template.family().id_prefix(), template.name().to_lowercase());
        let keyset = || Keyset::parse(&stage.alice(&["get", "-n", "--tink-keyset", &id], b"")).unwrap();
        stage.alice(&["create", "--key-template", template.name(), &id], b"");
        let first = keyset();
        let said = text(&stage.alice(&["add", "--key-template", template.name(), &id], b""));
        let added = said.trim().rsplit(' ').next().unwrap().to_owned();
        let both = keyset();
        assert_eq!((both.keys().len(), both.primary_id()), (2, first.primary_id()), "{id}");
        stage.alice(&["promote", &id, &added], b"");
        let rotated = keyset();
        assert_eq!(rotated.primary_id(), rotated.keys()[1].id(), "{id}");

        // What the old key made is still good after the rotation; what the new one makes is new.
        assert_eq!(use_with(template.family(), &first, &rotated), first.primary_id(), "{id}");
        assert_eq!(use_with(template.family(), &rotated, &rotated), rotated.primary_id(), "{id}");

        let info: serde_json::Value = serde_json::from_slice(&stage.alice(&["get", "--tink-keyset-info", &id], b"")).unwrap();
        assert_eq!(info["primary_key_id"], rotated.primary_id());
        assert_eq!(info["key_info"].as_array().unwrap().len(), 2);
        assert_eq!(info["key_info"][1]["knox_version_id"].to_string(), added);
        assert_eq!(info["key_info"][0]["output_prefix_type"], if template.family() == Family::StreamingAead { "RAW" } else { "TINK" });

        // The data of each version is a keyset of one key, and with -j it is what the server keeps.
        let data = stage.alice(&["get", "-n", "-v", &added, &id], b"");
        let single = Keyset::parse(&data).unwrap();
        assert_eq!((single.keys().len(), single.primary_id()), (1, rotated.primary_id()));
    }
    let names = text(&stage.alice(&["key-templates"], b""));
    let expected: Vec<&str> = Template::ALL.iter().map(|template| template.name()).collect();
    assert_eq!(names.lines().skip(1).collect::<Vec<_>>(), expected);
}
