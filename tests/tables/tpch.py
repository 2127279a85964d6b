"""TPC-H Q1-Q10, once for Dask and once as SQL; the specification's default substitutions (tpc.org/tpch)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

Tables = dict[str, Any]
D = dt.date


def amount(df: Any) -> Any:
    """extendedprice * (1 - discount)"""
    return df.l_extendedprice * (1.0 - df.l_discount)


def q1(t: Tables) -> Any:
    li = t["lineitem"]
    li = li[li.l_shipdate <= D(1998, 9, 2)]
    li = li.assign(disc_price=amount(li), charge=amount(li) * (1.0 + li.l_tax))
    found = li.groupby(["l_returnflag", "l_linestatus"]).agg(
        {
            "l_quantity": ["sum", "mean"],
            "l_extendedprice": ["sum", "mean"],
            "disc_price": "sum",
            "charge": "sum",
            "l_discount": "mean",
            "l_orderkey": "count",
        }
    )
    found = found.compute().reset_index()
    found.columns = [
        "f",
        "s",
        "sum_qty",
        "avg_qty",
        "sum_base",
        "avg_price",
        "sum_disc",
        "sum_charge",
        "avg_disc",
        "n",
    ]
    return found[
        ["f", "s", "sum_qty", "sum_base", "sum_disc", "sum_charge", "avg_qty", "avg_price", "avg_disc", "n"]
    ]


def q2(t: Tables) -> Any:
    region, part = t["region"], t["part"]
    part = part[(part.p_size == 15) & part.p_type.str.endswith("BRASS")]
    europe = region[region.r_name == "EUROPE"][["r_regionkey"]]
    nation = t["nation"].merge(europe, left_on="n_regionkey", right_on="r_regionkey")
    supplier = t["supplier"].merge(nation, left_on="s_nationkey", right_on="n_nationkey")
    offers = t["partsupp"].merge(part[["p_partkey", "p_mfgr"]], left_on="ps_partkey", right_on="p_partkey")
    offers = offers.merge(supplier, left_on="ps_suppkey", right_on="s_suppkey")
    offers = offers[["s_acctbal", "s_name", "n_name", "p_partkey", "p_mfgr", "ps_supplycost"]].compute()
    best = offers[offers.ps_supplycost == offers.groupby("p_partkey").ps_supplycost.transform("min")]
    best = best.sort_values(
        ["s_acctbal", "n_name", "s_name", "p_partkey"], ascending=[False, True, True, True]
    )
    return best.head(100)[["s_acctbal", "s_name", "n_name", "p_partkey", "p_mfgr"]]


def q3(t: Tables) -> Any:
    customer, orders, li = t["customer"], t["orders"], t["lineitem"]
    customer = customer[customer.c_mktsegment == "BUILDING"][["c_custkey"]]
    orders = orders[orders.o_orderdate < D(1995, 3, 15)]
    li = li[li.l_shipdate > D(1995, 3, 15)]
    orders = orders.merge(customer, left_on="o_custkey", right_on="c_custkey")
    li = li.assign(revenue=amount(li))[["l_orderkey", "revenue"]]
    found = li.merge(orders[["o_orderkey", "o_orderdate"]], left_on="l_orderkey", right_on="o_orderkey")
    found = found.groupby(["l_orderkey", "o_orderdate"]).revenue.sum().compute().reset_index()
    found = found.sort_values(["revenue", "o_orderdate"], ascending=[False, True]).head(10)
    return found[["l_orderkey", "revenue", "o_orderdate"]]


def q4(t: Tables) -> Any:
    orders, li = t["orders"], t["lineitem"]
    late = li[li.l_commitdate < li.l_receiptdate][["l_orderkey"]].drop_duplicates()
    orders = orders[(orders.o_orderdate >= D(1993, 7, 1)) & (orders.o_orderdate < D(1993, 10, 1))]
    found = orders.merge(late, left_on="o_orderkey", right_on="l_orderkey")
    return found.groupby("o_orderpriority").o_orderkey.count().compute().sort_index().reset_index()


def q5(t: Tables) -> Any:
    region, orders, li = t["region"], t["orders"], t["lineitem"]
    asia = region[region.r_name == "ASIA"][["r_regionkey"]]
    nation = t["nation"].merge(asia, left_on="n_regionkey", right_on="r_regionkey")
    supplier = t["supplier"].merge(nation, left_on="s_nationkey", right_on="n_nationkey")
    supplier = supplier[["s_suppkey", "s_nationkey", "n_name"]]
    orders = orders[(orders.o_orderdate >= D(1994, 1, 1)) & (orders.o_orderdate < D(1995, 1, 1))]
    orders = orders[["o_orderkey", "o_custkey"]]
    orders = orders.merge(
        t["customer"][["c_custkey", "c_nationkey"]], left_on="o_custkey", right_on="c_custkey"
    )
    li = li.assign(revenue=amount(li))[["l_orderkey", "l_suppkey", "revenue"]]
    found = li.merge(orders, left_on="l_orderkey", right_on="o_orderkey")
    found = found.merge(supplier, left_on=["l_suppkey", "c_nationkey"], right_on=["s_suppkey", "s_nationkey"])
    found = found.groupby("n_name").revenue.sum().compute().reset_index()
    return found.sort_values("revenue", ascending=False)


def q6(t: Tables) -> Any:
    import pandas as pd

    li = t["lineitem"]
    li = li[(li.l_shipdate >= D(1994, 1, 1)) & (li.l_shipdate < D(1995, 1, 1)) & (li.l_quantity < 24.0)]
    li = li[(li.l_discount > 0.0499) & (li.l_discount < 0.0701)]
    return pd.DataFrame({"revenue": [(li.l_extendedprice * li.l_discount).sum().compute()]})


def q7(t: Tables) -> Any:
    nation = t["nation"][["n_nationkey", "n_name"]]
    nation = nation[nation.n_name.isin(["FRANCE", "GERMANY"])]
    supplier = t["supplier"].merge(nation, left_on="s_nationkey", right_on="n_nationkey")
    supplier = supplier[["s_suppkey", "n_name"]].rename(columns={"n_name": "supp"})
    customer = t["customer"].merge(nation, left_on="c_nationkey", right_on="n_nationkey")
    customer = customer[["c_custkey", "n_name"]].rename(columns={"n_name": "cust"})
    orders = t["orders"][["o_orderkey", "o_custkey"]]
    orders = orders.merge(customer, left_on="o_custkey", right_on="c_custkey")
    li = t["lineitem"]
    li = li[(li.l_shipdate >= D(1995, 1, 1)) & (li.l_shipdate <= D(1996, 12, 31))]
    li = li.assign(volume=amount(li))[["l_orderkey", "l_suppkey", "l_shipdate", "volume"]]
    found = li.merge(supplier, left_on="l_suppkey", right_on="s_suppkey")
    found = found.merge(orders, left_on="l_orderkey", right_on="o_orderkey")
    found = found[found.supp != found.cust]
    found = found.assign(year=found.l_shipdate.dt.year)
    found = found.groupby(["supp", "cust", "year"]).volume.sum().compute()
    return found.sort_index().reset_index()


def q8(t: Tables) -> Any:
    region, part, orders, nation = t["region"], t["part"], t["orders"], t["nation"]
    part = part[part.p_type == "ECONOMY ANODIZED STEEL"][["p_partkey"]]
    america = nation.merge(
        region[region.r_name == "AMERICA"][["r_regionkey"]], left_on="n_regionkey", right_on="r_regionkey"
    )
    customer = t["customer"][["c_custkey", "c_nationkey"]]
    customer = customer.merge(america[["n_nationkey"]], left_on="c_nationkey", right_on="n_nationkey")
    orders = orders[(orders.o_orderdate >= D(1995, 1, 1)) & (orders.o_orderdate <= D(1996, 12, 31))]
    orders = orders.merge(customer[["c_custkey"]], left_on="o_custkey", right_on="c_custkey")
    li = t["lineitem"]
    li = li.assign(volume=amount(li))[["l_orderkey", "l_partkey", "l_suppkey", "volume"]]
    found = li.merge(part, left_on="l_partkey", right_on="p_partkey")
    found = found.merge(orders[["o_orderkey", "o_orderdate"]], left_on="l_orderkey", right_on="o_orderkey")
    supplier = t["supplier"][["s_suppkey", "s_nationkey"]]
    supplier = supplier.merge(
        nation[["n_nationkey", "n_name"]], left_on="s_nationkey", right_on="n_nationkey"
    )
    found = found.merge(supplier[["s_suppkey", "n_name"]], left_on="l_suppkey", right_on="s_suppkey")
    found = found.assign(year=found.o_orderdate.dt.year)
    found = found[["year", "n_name", "volume"]].compute()
    found["brazil"] = found.volume.where(found.n_name == "BRAZIL", 0.0)
    sums = found.groupby("year")[["brazil", "volume"]].sum().sort_index()
    return (sums.brazil / sums.volume).rename("share").reset_index()


def q9(t: Tables) -> Any:
    part = t["part"]
    part = part[part.p_name.str.contains("green", regex=False)][["p_partkey"]]
    li = t["lineitem"]
    li = li.assign(revenue=amount(li))[["l_orderkey", "l_partkey", "l_suppkey", "l_quantity", "revenue"]]
    found = li.merge(part, left_on="l_partkey", right_on="p_partkey")
    supply = t["partsupp"][["ps_partkey", "ps_suppkey", "ps_supplycost"]]
    found = found.merge(supply, left_on=["l_partkey", "l_suppkey"], right_on=["ps_partkey", "ps_suppkey"])
    supplier = t["supplier"].merge(t["nation"], left_on="s_nationkey", right_on="n_nationkey")
    found = found.merge(supplier[["s_suppkey", "n_name"]], left_on="l_suppkey", right_on="s_suppkey")
    found = found.merge(
        t["orders"][["o_orderkey", "o_orderdate"]], left_on="l_orderkey", right_on="o_orderkey"
    )
    found = found.assign(
        year=found.o_orderdate.dt.year, profit=found.revenue - found.ps_supplycost * found.l_quantity
    )
    found = found.groupby(["n_name", "year"]).profit.sum().compute().reset_index()
    return found.sort_values(["n_name", "year"], ascending=[True, False])


def q10(t: Tables) -> Any:
    orders, li = t["orders"], t["lineitem"]
    orders = orders[(orders.o_orderdate >= D(1993, 10, 1)) & (orders.o_orderdate < D(1994, 1, 1))]
    li = li[li.l_returnflag == "R"]
    li = li.assign(revenue=amount(li))[["l_orderkey", "revenue"]]
    found = li.merge(orders[["o_orderkey", "o_custkey"]], left_on="l_orderkey", right_on="o_orderkey")
    found = found.groupby("o_custkey").revenue.sum().reset_index()
    customer = t["customer"][["c_custkey", "c_name", "c_nationkey"]]
    found = found.merge(customer, left_on="o_custkey", right_on="c_custkey")
    found = found.merge(t["nation"][["n_nationkey", "n_name"]], left_on="c_nationkey", right_on="n_nationkey")
    found = found[["c_custkey", "c_name", "revenue", "n_name"]].compute()
    return found.sort_values(["revenue", "c_custkey"], ascending=[False, True]).head(20)


R = "l_extendedprice * (1 - l_discount)"
SQL = {
    "q1": f"""select l_returnflag, l_linestatus, sum(l_quantity), sum(l_extendedprice), sum({R}),
        sum({R} * (1 + l_tax)), avg(l_quantity), avg(l_extendedprice), avg(l_discount), count(*)
        from lineitem where l_shipdate <= date '1998-09-02' group by 1, 2""",
    "q2": """select s_acctbal, s_name, n_name, p_partkey, p_mfgr from part, supplier, partsupp, nation, region
        where p_partkey = ps_partkey and s_suppkey = ps_suppkey and p_size = 15 and p_type like '%BRASS'
        and s_nationkey = n_nationkey and n_regionkey = r_regionkey and r_name = 'EUROPE'
        and ps_supplycost = (select min(ps_supplycost) from partsupp, supplier, nation, region
            where p_partkey = ps_partkey and s_suppkey = ps_suppkey and s_nationkey = n_nationkey
            and n_regionkey = r_regionkey and r_name = 'EUROPE')
        order by s_acctbal desc, n_name, s_name, p_partkey limit 100""",
    "q3": f"""select l_orderkey, sum({R}) revenue, o_orderdate from customer, orders, lineitem
        where c_mktsegment = 'BUILDING' and c_custkey = o_custkey and l_orderkey = o_orderkey
        and o_orderdate < date '1995-03-15' and l_shipdate > date '1995-03-15'
        group by l_orderkey, o_orderdate, o_shippriority order by revenue desc, o_orderdate limit 10""",
    "q4": """select o_orderpriority, count(*) from orders where o_orderdate >= date '1993-07-01'
        and o_orderdate < date '1993-10-01' and exists (select * from lineitem where l_orderkey = o_orderkey
        and l_commitdate < l_receiptdate) group by 1""",
    "q5": f"""select n_name, sum({R}) from customer, orders, lineitem, supplier, nation, region
        where c_custkey = o_custkey and l_orderkey = o_orderkey and l_suppkey = s_suppkey
        and c_nationkey = s_nationkey and s_nationkey = n_nationkey and n_regionkey = r_regionkey
        and r_name = 'ASIA' and o_orderdate >= date '1994-01-01' and o_orderdate < date '1995-01-01'
        group by 1""",
    "q6": """select sum(l_extendedprice * l_discount) from lineitem where l_shipdate >= date '1994-01-01'
        and l_shipdate < date '1995-01-01' and l_discount between 0.05 and 0.07 and l_quantity < 24""",
    "q7": f"""select n1.n_name, n2.n_name, year(l_shipdate), sum({R})
        from supplier, lineitem, orders, customer, nation n1, nation n2
        where s_suppkey = l_suppkey and o_orderkey = l_orderkey and c_custkey = o_custkey
        and s_nationkey = n1.n_nationkey and c_nationkey = n2.n_nationkey
        and ((n1.n_name = 'FRANCE' and n2.n_name = 'GERMANY')
            or (n1.n_name = 'GERMANY' and n2.n_name = 'FRANCE'))
        and l_shipdate between date '1995-01-01' and date '1996-12-31' group by 1, 2, 3""",
    "q8": f"""select year(o_orderdate), sum(case when n2.n_name = 'BRAZIL' then {R} else 0 end) / sum({R})
        from part, supplier, lineitem, orders, customer, nation n1, nation n2, region
        where p_partkey = l_partkey and s_suppkey = l_suppkey and l_orderkey = o_orderkey
        and o_custkey = c_custkey and c_nationkey = n1.n_nationkey and n1.n_regionkey = r_regionkey
        and r_name = 'AMERICA' and s_nationkey = n2.n_nationkey
        and o_orderdate between date '1995-01-01' and date '1996-12-31'
        and p_type = 'ECONOMY ANODIZED STEEL' group by 1""",
    "q9": f"""select n_name, year(o_orderdate), sum({R} - ps_supplycost * l_quantity)
        from part, supplier, lineitem, partsupp, orders, nation where s_suppkey = l_suppkey
        and ps_suppkey = l_suppkey and ps_partkey = l_partkey and p_partkey = l_partkey
        and o_orderkey = l_orderkey and s_nationkey = n_nationkey and p_name like '%green%' group by 1, 2""",
    "q10": f"""select c_custkey, c_name, sum({R}) revenue, n_name from customer, orders, lineitem, nation
        where c_custkey = o_custkey and l_orderkey = o_orderkey and o_orderdate >= date '1993-10-01'
        and o_orderdate < date '1994-01-01' and l_returnflag = 'R' and c_nationkey = n_nationkey
        group by 1, 2, 4 order by revenue desc, c_custkey limit 20""",
}
DASK: dict[str, Callable[[Tables], Any]] = {
    "q1": q1,
    "q2": q2,
    "q3": q3,
    "q4": q4,
    "q5": q5,
    "q6": q6,
    "q7": q7,
    "q8": q8,
    "q9": q9,
    "q10": q10,
}
TABLES = ("customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier")
