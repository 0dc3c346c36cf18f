"""Tokens exactly as the Java console makes them (manager-api, `AESUtils` and `AgentMcpAccessPointServiceImpl`)."""

import base64

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7


def pad_key(key: str) -> bytes:
    """The bytes of the key as they are if they are 16, 24 or 32; else padded with zeros, or cut, to 32."""
    raw = key.encode()
    return raw if len(raw) in (16, 24, 32) else raw[:32].ljust(32, b"\0")


def encrypt(text: str, key: str) -> str:
    """base64(AES/ECB/PKCS5(text))."""
    padder = PKCS7(128).padder()
    padded = padder.update(text.encode()) + padder.finalize()
    encryptor = Cipher(algorithms.AES(pad_key(key)), modes.ECB()).encryptor()
    return base64.b64encode(encryptor.update(padded) + encryptor.finalize()).decode()


def console_token(agent: str, key: str) -> str:
    """The token of an agent; always the same for the same agent and key."""
    return encrypt(f'{{"agentId": "{agent}"}}', key)
