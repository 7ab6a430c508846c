"""Tails and k-tables with 40 digits, by summing the terms of SEP2P's equations (1) and (2) themselves.

    python3 make.py tails > tails.txt      k n rs P(>=k) P(<k)
    python3 make.py tables > tables.txt    N C alpha, then a line 'k rs share' for each row

Needs mpmath 1.3 or newer. Shares come from the arrival of nodes row by row, as in the crate, but with exact binomials.
"""

import sys
from mpmath import mp, mpf, binomial, findroot, log, exp, nstr

mp.dps = 40


def term(i, n, rs):
    return binomial(n, i) * rs**i * (1 - rs) ** (n - i)


def total(i, step, end, n, rs):
    """Sum of the terms from i on, until they no longer matter."""
    one = total = term(i, n, rs)
    odds = rs / (1 - rs)
    while i != end:
        one *= odds * (n - i) / (i + 1) if step > 0 else i / odds / (n - i + 1)
        i += step
        total += one
        if one < total * mpf(10) ** -38 and (i > n * rs) == (step > 0):
            break
    return total


def at_least(k, n, rs):
    return total(k, 1, n, n, rs) if k > 0 else mpf(1)


def fewer_than(k, n, rs):
    return total(k - 1, -1, 0, n, rs) if k > 0 else mpf(0)


def tails():
    for n in (10, 100, 10**4, 10**5, 10**6, 10**7, 10**9):
        for k in (1, 2, 4, 6, 10, 15, 30, 100, 450, 2000):
            sizes = {(k + z * k**0.5) / n for z in (-7, -3, -0.5, 0.5, 3, 7)} | {0.5 / n, 1e-3 / n, 1e-6 / n}
            for rs in sorted(s for s in sizes if 0 < s < 1 and k <= n):
                high, low = at_least(k, n, mpf(rs)), fewer_than(k, n, mpf(rs))
                if min(high, low) > mpf(10) ** -250:
                    print(k, n, repr(rs), nstr(high, 17), nstr(low, 17))


def region(k, colluding, alpha):
    if k > colluding:
        return mpf(1)
    start = (log(alpha) - log(binomial(colluding, k))) / k
    f = lambda x: log(at_least(k, colluding, exp(x))) - log(alpha)
    low, high = start, min(start + 1, mpf("-1e-9"))
    while f(high) < 0:
        high /= 2
    return exp(findroot(f, (low, high), solver="anderson", tol=1e-60))


def table(nodes, colluding, alpha):
    seen, size = {0: mpf(1)}, mpf(0)
    for k in range(1, colluding + 2):
        larger = region(k, colluding, alpha)
        if larger == 1:
            print(k, 1, nstr(sum(seen.values()), 10))
            return
        step, share, grown = (larger - size) / (1 - size), mpf(0), {}
        for count, chance in seen.items():
            share += chance * at_least(k - count, nodes - count, step)
            for arrived in range(k - count):
                grown[count + arrived] = grown.get(count + arrived, 0) + chance * term(arrived, nodes - count, step)
        print(k, nstr(larger, 10), nstr(share, 10))
        if fewer_than(k, nodes, larger) <= alpha:
            return
        seen, size = grown, larger


def tables():
    for nodes, colluding, alpha in [
        (10**6, 10**4, "1e-6"), (10**7, 10**5, "1e-6"), (10**7, 10**5, "1e-10"), (10**7, 10**6, "1e-10"),
        (10**4, 100, "1e-10"), (10**5, 1000, "1e-4"), (10**7, 100, "1e-6"), (10**4, 1, "1e-6"), (50, 25, "1e-3"),
    ]:
        print("table", nodes, colluding, alpha)
        table(nodes, colluding, mpf(alpha))


{"tails": tails, "tables": tables}[sys.argv[1]]()
