"""Fingerprints tell different texts, names and contents apart."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from retrograd.util.fingerprints import fingerprint, fingerprint_files, sha256_of


class TestFingerprint:
    def test_is_sha256_with_lengths_before_the_parts(self):
        # sha256 of eight little-endian bytes of length 3, then "abc"
        assert fingerprint(["abc"]) == hashlib.sha256(b"\x03\0\0\0\0\0\0\0abc").hexdigest()
        assert fingerprint([b"abc"]) == fingerprint(["abc"])

    @given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
    def test_equal_only_for_equal_parts(self, left, right):
        assert (fingerprint(left) == fingerprint(right)) == (left == right)

    def test_boundaries_and_order_count(self):
        variants = (["ab", "c"], ["a", "bc"], ["abc"], ["c", "ab"], ["ab", "", "c"], ["ab", "c", ""])
        assert len({fingerprint(parts) for parts in variants}) == len(variants)

    def test_lone_surrogates_have_one_too(self):
        assert fingerprint(["\ud800"]) != fingerprint(["\ud801"])

    def test_of_one_file_is_that_of_its_bytes(self, tmp_path):
        path = tmp_path / "data.txt"
        path.write_bytes(b"abc")
        assert sha256_of(path) == hashlib.sha256(b"abc").hexdigest()

    def test_of_files_is_of_names_contents_and_order(self, tmp_path):
        a, b = tmp_path / "a", tmp_path / "b"
        a.write_bytes(b"1")
        b.write_bytes(b"2")
        first = fingerprint_files([a, b])
        assert first == fingerprint_files([a, b])
        assert first != fingerprint_files([b, a])
        b.write_bytes(b"3")
        changed = fingerprint_files([a, b])
        assert changed != first
        assert fingerprint_files([a, b.rename(tmp_path / "c")]) not in (first, changed)
