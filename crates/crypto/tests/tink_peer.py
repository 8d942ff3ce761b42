"""Google's Tink, asked line by line: `COMMAND FAMILY HEX...` gives a line of hex, or `refused: WHY`."""

import io
import sys

import tink
from tink import aead, cleartext_keyset_handle, daead, hybrid, mac, signature, streaming_aead
from tink.proto import tink_pb2

for module in (aead, daead, hybrid, mac, signature, streaming_aead):
    module.register()

TEMPLATES = {
    "TINK_AEAD_AES128_GCM": aead.aead_key_templates.AES128_GCM,
    "TINK_AEAD_AES256_GCM": aead.aead_key_templates.AES256_GCM,
    "TINK_DAEAD_AES256_SIV": daead.deterministic_aead_key_templates.AES256_SIV,
    "TINK_DSIG_ECDSA_P256": signature.signature_key_templates.ECDSA_P256,
    "TINK_DSIG_ED25519": signature.signature_key_templates.ED25519,
    "TINK_HYBRID_ECIES_P256_HKDF_HMAC_SHA256_AES128_GCM": hybrid.hybrid_key_templates.ECIES_P256_HKDF_HMAC_SHA256_AES128_GCM,
    "TINK_MAC_HMAC_SHA512_256BITTAG": mac.mac_key_templates.HMAC_SHA512_256BITTAG,
    "TINK_SAEAD_AES128_GCM_HKDF_1MB": streaming_aead.streaming_aead_key_templates.AES128_GCM_HKDF_1MB,
    "TINK_SAEAD_AES128_GCM_HKDF_4KB": streaming_aead.streaming_aead_key_templates.AES128_GCM_HKDF_4KB,
}


class Kept(io.BytesIO):
    """A buffer whose content outlives its closing."""

    def close(self):
        self.content = self.getvalue()
        super().close()


def handle(keyset):
    return cleartext_keyset_handle.read(tink.BinaryKeysetReader(keyset))


def public(keyset):
    return tink.read_no_secret_keyset_handle(tink.BinaryKeysetReader(keyset))


def new(template):
    made = io.BytesIO()
    cleartext_keyset_handle.write(tink.BinaryKeysetWriter(made), tink.new_keyset_handle(TEMPLATES[template]))
    return made.getvalue()


def info(keyset):
    said = handle(keyset).keyset_info()
    keys = [(k.type_url, tink_pb2.KeyStatusType.Name(k.status), k.key_id, tink_pb2.OutputPrefixType.Name(k.output_prefix_type)) for k in said.key_info]
    return repr((said.primary_key_id, keys)).encode()


def encrypt_stream(keyset, plain, data):
    out = Kept()
    with handle(keyset).primitive(streaming_aead.StreamingAead).new_encrypting_stream(out, data) as stream:
        stream.write(plain)
    return out.content


def decrypt_stream(keyset, made, data):
    with handle(keyset).primitive(streaming_aead.StreamingAead).new_decrypting_stream(io.BytesIO(made), data) as stream:
        return stream.read()


def verify(primitive):
    def run(made, message):
        primitive.verify(made, message)
        return b""

    return run


def verify_mac(keyset, made, message):
    handle(keyset).primitive(mac.Mac).verify_mac(made, message)
    return b""


COMMANDS = {
    "info": lambda keyset: info(keyset),
    "encrypt tink:aead:": lambda keyset, plain, data: handle(keyset).primitive(aead.Aead).encrypt(plain, data),
    "decrypt tink:aead:": lambda keyset, made, data: handle(keyset).primitive(aead.Aead).decrypt(made, data),
    "encrypt tink:daead:": lambda keyset, plain, data: handle(keyset).primitive(daead.DeterministicAead).encrypt_deterministically(plain, data),
    "decrypt tink:daead:": lambda keyset, made, data: handle(keyset).primitive(daead.DeterministicAead).decrypt_deterministically(made, data),
    "encrypt tink:hybrid:": lambda keyset, plain, data: public(keyset).primitive(hybrid.HybridEncrypt).encrypt(plain, data),
    "decrypt tink:hybrid:": lambda keyset, made, data: handle(keyset).primitive(hybrid.HybridDecrypt).decrypt(made, data),
    "encrypt tink:saead:": encrypt_stream,
    "decrypt tink:saead:": decrypt_stream,
    "sign tink:mac:": lambda keyset, message: handle(keyset).primitive(mac.Mac).compute_mac(message),
    "verify tink:mac:": verify_mac,
    "sign tink:dsig:": lambda keyset, message: handle(keyset).primitive(signature.PublicKeySign).sign(message),
    "verify tink:dsig:": lambda keyset, made, message: verify(public(keyset).primitive(signature.PublicKeyVerify))(made, message),
}

for line in sys.stdin:
    command, *arguments = line.rstrip("\n").split(",")
    try:
        if command == "new":
            answer = new(arguments[0])
        else:
            answer = COMMANDS[command](*map(bytes.fromhex, arguments))
        print(answer.hex())
    except (tink.TinkError, OSError) as error:
        print(f"refused: {error}")
    sys.stdout.flush()
