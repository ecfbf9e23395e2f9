"""Reads JSON objects into lanes of numbers, compiled: a lane is a field of the event, a column a message.

It knows the usual ways to write an object, and marks a message that is written in another as bad: what that means, the
caller finds out elsewhere. So it may refuse what is right, but must never take what is wrong, nor as another value.

Each message ends with a byte 0, which occurs in no JSON: nothing here has to look for the end.
"""

import numpy as np

from headrace.flows.compiled import kernel, step
from headrace.flows.machine import byte_at, leading_zeros, product

TEXT, WHOLE, REAL, TRUTH, INSTANT = range(5)
"""What a lane takes: strings, integers, numbers, true and false, instants as ISO 8601 with a zone."""
ABSENT, GIVEN, LONG = range(3)
"""Of a value: null or not there, given, or a number of so many digits that the caller has to read it."""

DIGITS = 18
"""So many digits fit into an int64 whatever they are; a float64 written in full has 17."""
EXACT = 2**53
"""Up to here each integer is a float64."""
POWERS = np.array([float(10**k) for k in range(23)])
"""Powers of ten that are float64 exactly: a product or quotient of two exact numbers is rounded once, so correctly
(W. D. Clinger, How to Read Floating Point Numbers Accurately, 1990)."""
MOST = 50
"""Numbers times a power of ten up to this, or down to one over it, are rounded here."""


def _five(power: int) -> int:
    """The first 128 bits of a power of five: cut off, but of fractions down to 5**-27 rounded up, so that a product
    which is a float64 or halfway between two is seen to be one."""
    if power >= 0:
        return (5**power << 128) >> (5**power).bit_length()
    below = 5**-power
    return (1 << 127 + below.bit_length()) // below + (power >= -27)


FIVES = np.array([divmod(_five(power), 1 << 64) for power in range(-MOST, MOST + 1)], dtype=np.uint64)
"""(2 MOST + 1, 2): both halves of them."""
DEPTH = 60
QUOTE, BACKSLASH, COMMA, COLON, OPEN, CLOSE, OPEN_LIST, CLOSE_LIST = (ord(c) for c in '"\\,:{}[]')
DAY_US = 86_400_000_000


@step
def blank(block, at):
    """The place of the first byte that is no white space."""
    while byte_at(block, at) == 32 or byte_at(block, at) == 10 or byte_at(block, at) == 13 or byte_at(block, at) == 9:
        at += 1
    return at


@step
def plain(block, at):
    """The place of the quote that ends a string without escapes, from behind its first; -1 if there is none."""
    byte = byte_at(block, at)
    while byte != QUOTE and byte != BACKSLASH and byte >= 32:
        at += 1
        byte = byte_at(block, at)
    return at if byte == QUOTE else -1


@step
def is_hex(byte):
    return 48 <= byte <= 57 or 65 <= byte <= 70 or 97 <= byte <= 102


@step
def string(block, at):
    """The place behind a string that may have escapes, from behind its first quote; -1 if there is none."""
    while True:
        at = unescaped(block, at)
        if byte_at(block, at) == QUOTE:
            return at + 1
        if byte_at(block, at) != BACKSLASH:
            return -1
        byte = byte_at(block, at + 1)
        if byte == 117:  # \uXXXX, halves of a pair aside
            if not (
                is_hex(byte_at(block, at + 2)) and is_hex(byte_at(block, at + 3)) and is_hex(byte_at(block, at + 4))
            ):
                return -1
            if not is_hex(byte_at(block, at + 5)) or (
                byte_at(block, at + 2) | 32 == 100 and byte_at(block, at + 3) >= 56
            ):
                return -1
            at += 6
        elif byte in (QUOTE, BACKSLASH, 47, 98, 102, 110, 114, 116):
            at += 2
        else:
            return -1


@step
def unescaped(block, at):
    byte = byte_at(block, at)
    while byte != QUOTE and byte != BACKSLASH and byte >= 32:
        at += 1
        byte = byte_at(block, at)
    return at


@step
def number(block, at):
    """A number: its digits as an integer, the power of ten that they are multiplied with, how many digits count,
    whether it has neither a point nor an exponent, and the place behind it, -1 if there is none. The sign is the
    caller's.
    """
    value = np.int64(0)
    power = np.int64(0)
    digits = np.int64(0)
    whole = True
    first = at
    while 48 <= byte_at(block, at) <= 57:
        if digits < DIGITS:
            value = value * 10 + byte_at(block, at) - 48
        if value != 0:
            digits += 1
        at += 1
    if at == first or (byte_at(block, first) == 48 and at > first + 1):
        return value, power, digits, whole, -1
    if byte_at(block, at) == 46:
        whole = False
        at += 1
        first = at
        while 48 <= byte_at(block, at) <= 57:
            if digits < DIGITS:
                value = value * 10 + byte_at(block, at) - 48
                power -= 1
            if value != 0:
                digits += 1
            at += 1
        if at == first:
            return value, power, digits, whole, -1
    if byte_at(block, at) | 32 == 101:
        whole = False
        at += 1
        negative = byte_at(block, at) == 45
        if negative or byte_at(block, at) == 43:
            at += 1
        first = at
        exponent = np.int64(0)
        while 48 <= byte_at(block, at) <= 57 and at < first + 3:
            exponent = exponent * 10 + byte_at(block, at) - 48
            at += 1
        if at == first or 48 <= byte_at(block, at) <= 57:
            return value, power, digits, whole, -1
        power += -exponent if negative else exponent
    return value, power, digits, whole, at


@step
def rounded(value, power):
    """The bits of the float64 next to value * 10 ** power, of a value above 0 and a power that `FIVES` has, sign aside.

    D. Lemire, Number Parsing at a Gigabyte per Second (Software: Practice and Experience 51, 2021), section 5; that the
    second product always is enough: N. Mushtak, D. Lemire, Fast Number Parsing Without Fallback (the same, 53, 2023).
    """
    zeros = leading_zeros(value)
    left = np.uint64(value) << np.uint64(zeros)
    high, low = product(left, FIVES[power + MOST, 0])
    if high & np.uint64(0x1FF) == np.uint64(0x1FF):
        more, _ = product(left, FIVES[power + MOST, 1])
        if more > ~low:  # the sum has a bit too many
            low = more - ~low - np.uint64(1)
            high += np.uint64(1)
        else:
            low += more
    upper = high >> np.uint64(63)
    bits = high >> (upper + np.uint64(9))
    # 152170 + 65536 over 65536 is log2 of ten, near enough for all powers here.
    exponent = (217_706 * power >> 16) + 63 + np.int64(upper) - zeros + 1023
    # Halfway between two, exactly: to the even one.
    tie = low <= np.uint64(1) and -4 <= power <= 23 and bits << (upper + np.uint64(9)) == high
    if tie and bits & np.uint64(3) == np.uint64(1):
        bits &= ~np.uint64(1)
    bits = (bits + (bits & np.uint64(1))) >> np.uint64(1)
    if bits >> np.uint64(53) != np.uint64(0):
        bits >>= np.uint64(1)
        exponent += 1
    return exponent << 52 | (np.int64(bits) & 0xF_FFFF_FFFF_FFFF)


@step
def literal(block, at):
    """The place behind true, false or null; -1 if there is none."""
    if (
        byte_at(block, at) == 116
        and byte_at(block, at + 1) == 114
        and byte_at(block, at + 2) == 117
        and byte_at(block, at + 3) == 101
    ):
        return at + 4
    if (
        byte_at(block, at) == 110
        and byte_at(block, at + 1) == 117
        and byte_at(block, at + 2) == 108
        and byte_at(block, at + 3) == 108
    ):
        return at + 4
    if (
        byte_at(block, at) == 102
        and byte_at(block, at + 1) == 97
        and byte_at(block, at + 2) == 108
        and byte_at(block, at + 3) == 115
    ):
        return at + 5 if byte_at(block, at + 4) == 101 else -1
    return -1


@step
def to_value(block, at):
    """From the place of a key to that of its value; -1 if it is no key."""
    if byte_at(block, at) != QUOTE:
        return -1
    at = plain(block, at + 1)
    if at < 0:
        return -1
    at = blank(block, at + 1)
    return blank(block, at + 1) if byte_at(block, at) == COLON else -1


@step
def skipped(block, at):
    """The place behind a value of any kind; -1 if there is none."""
    depth = 0
    objects = np.int64(0)  # a bit for each that is open: whether it is an object
    while True:
        byte = byte_at(block, at)
        if byte in (OPEN, OPEN_LIST):
            of_pairs = byte == OPEN
            at = blank(block, at + 1)
            if byte_at(block, at) == (CLOSE if of_pairs else CLOSE_LIST):
                at += 1
            else:
                if depth == DEPTH:
                    return -1
                depth += 1
                objects = objects << 1 | of_pairs
                if of_pairs:
                    at = to_value(block, at)
                    if at < 0:
                        return -1
                continue
        elif byte == QUOTE:
            at = string(block, at + 1)
        elif byte == 45 or 48 <= byte <= 57:
            at = number(block, at + 1 if byte == 45 else at)[4]
        else:
            at = literal(block, at)
        if at < 0:
            return -1
        while depth > 0:
            of_pairs = objects & 1 == 1
            at = blank(block, at)
            if byte_at(block, at) == COMMA:
                at = blank(block, at + 1)
                if of_pairs:
                    at = to_value(block, at)
                    if at < 0:
                        return -1
                break
            if byte_at(block, at) != (CLOSE if of_pairs else CLOSE_LIST):
                return -1
            at += 1
            depth -= 1
            objects >>= 1
        else:
            return at


@step
def two(block, at):
    """A number of two digits; far below zero if there is none."""
    if 48 <= byte_at(block, at) <= 57 and 48 <= byte_at(block, at + 1) <= 57:
        return (byte_at(block, at) - 48) * 10 + byte_at(block, at + 1) - 48
    return np.int64(-1_000_000)


@step
def instant(block, at, end):
    """Microseconds since 1970 of the text 2026-05-01T12:00:00.25+02:00 or the like, and whether it is one."""
    none = np.int64(0), False
    if (
        end - at < 20
        or byte_at(block, at + 4) != 45
        or byte_at(block, at + 7) != 45
        or byte_at(block, at + 13) != 58
        or byte_at(block, at + 16) != 58
    ):
        return none
    if byte_at(block, at + 10) != 84 and byte_at(block, at + 10) != 32:
        return none
    year = two(block, at) * 100 + two(block, at + 2)
    month = two(block, at + 5)
    day = two(block, at + 8)
    hour = two(block, at + 11)
    minute = two(block, at + 14)
    second = two(block, at + 17)
    # The years at either end are left to others: an offset may lead out of them.
    if not (2 <= year <= 9998 and 1 <= month <= 12 and day >= 1 and 0 <= hour <= 23 and 0 <= minute <= 59):
        return none
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    last = 30 + (month + month // 8) % 2
    if month == 2:
        last = 29 if leap else 28
    if day > last or not 0 <= second <= 59:
        return none
    at += 19
    micros = np.int64(0)
    if byte_at(block, at) == 46:
        at += 1
        unit = np.int64(100_000)
        while 48 <= byte_at(block, at) <= 57 and unit > 0:
            micros += (byte_at(block, at) - 48) * unit
            unit //= 10
            at += 1
        if unit == 100_000:
            return none
    offset = np.int64(0)
    if byte_at(block, at) == 90:
        at += 1
    elif (byte_at(block, at) == 43 or byte_at(block, at) == 45) and byte_at(block, at + 3) == 58:
        hours = two(block, at + 1)
        minutes = two(block, at + 4)
        if not (0 <= hours <= 23 and 0 <= minutes <= 59):
            return none
        offset = (hours * 60 + minutes) * (1 if byte_at(block, at) == 43 else -1)
        at += 6
    else:
        return none
    # Days since 1970 in the Gregorian calendar, of years that begin in March: leap days are their last.
    since = year - (1 if month <= 2 else 0)
    days = 365 * since + since // 4 - since // 100 + since // 400 + (153 * ((month + 9) % 12) + 2) // 5 + day - 719_469
    return days * DAY_US + ((hour * 60 + minute - offset) * 60 + second) * 1_000_000 + micros, at == end


@kernel
def scan(block, starts, names, name_at, kinds, nullable, follow, seen, values, floats, sizes, given, bad):
    """Read n objects, of which each begins at one of `starts` (n + 1,) and ends before the next, with a byte 0.

    names: the lanes' keys in quotes, behind each other; that of lane k begins at name_at[k]. kinds, nullable: (lanes,).
    follow: (lanes + 1,) scratch: the lane that is likely to come after each, at first after none. seen: (lanes,)
    scratch, 0. values: (lanes, n) int64, of strings and long numbers the place in the block with their length in
    `sizes`; floats: the same memory as float64. given: (lanes, n) as above. bad: (n,) bool.
    """
    lanes = kinds.shape[0]
    for i in range(bad.shape[0]):
        found = 0
        last = 0
        at = blank(block, starts[i])
        good = byte_at(block, at) == OPEN
        at = blank(block, at + 1)
        more = good and byte_at(block, at) != CLOSE
        while more:
            good = False
            lane = follow[last]
            for turn in range(lanes + 1):
                if turn > 0:
                    lane = turn - 1
                name = name_at[lane]
                size = name_at[lane + 1] - name
                k = 0
                while k < size and byte_at(block, at + k) == byte_at(names, name + k):
                    k += 1
                if k == size:
                    good = True
                    break
            if not good:
                at = to_value(block, at)
                if at < 0:
                    break
                at = skipped(block, at)
                if at < 0:
                    break
                good = True
            else:
                follow[last] = lane
                last = lane + 1
                at = blank(block, at + size)
                good = byte_at(block, at) == COLON and seen[lane] != i + 1
                if not good:
                    break
                seen[lane] = i + 1
                found += 1
                at = blank(block, at + 1)
                byte = byte_at(block, at)
                kind = kinds[lane]
                is_given = GIVEN
                if byte == 110:
                    at = literal(block, at)
                    good = at >= 0 and nullable[lane]
                    is_given = ABSENT
                elif kind in (TEXT, INSTANT):
                    first = at + 1
                    end = plain(block, first) if byte == QUOTE else -1
                    good = end >= 0
                    if good:
                        at = end + 1
                        if kind == TEXT:
                            values[lane, i] = first
                            sizes[lane, i] = end - first
                        else:
                            values[lane, i], good = instant(block, first, end)
                elif kind == TRUTH:
                    values[lane, i] = byte == 116
                    at = literal(block, at) if byte == 116 or byte == 102 else -1
                    good = at >= 0
                else:
                    negative = byte == 45
                    first = at
                    value, power, digits, whole, at = number(block, at + 1 if negative else at)
                    good = at >= 0
                    if kind == WHOLE:
                        good = good and whole and digits <= DIGITS
                        values[lane, i] = -value if negative else value
                    elif value == 0:
                        floats[lane, i] = -0.0 if negative else 0.0
                    elif digits <= DIGITS and value <= EXACT and -22 <= power <= 22:
                        real = value / POWERS[-power] if power < 0 else value * POWERS[power]
                        floats[lane, i] = -real if negative else real
                    elif digits <= DIGITS and -MOST <= power <= MOST:
                        values[lane, i] = rounded(value, power) | (np.int64(negative) << 63)
                    else:
                        values[lane, i] = first
                        sizes[lane, i] = at - first
                        is_given = LONG
                if not good:
                    break
                given[lane, i] = is_given
            at = blank(block, at)
            more = byte_at(block, at) == COMMA
            if more:
                at = blank(block, at + 1)
            else:
                good = byte_at(block, at) == CLOSE
        if good:
            at = blank(block, at + 1)
            good = at == starts[i + 1] - 1
        if good and found < lanes:
            for lane in range(lanes):
                if seen[lane] != i + 1:
                    good = good and nullable[lane]
                    given[lane, i] = ABSENT
        bad[i] = not good
