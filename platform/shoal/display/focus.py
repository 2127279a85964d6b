"""Charges as rows of FOCUS 1.0, the FinOps Foundation's open cost and usage format. Pure: values in, rows out.

Why it exists: a finance tool reads what clusters cost beside the bills of clouds, without an adapter.

Columns, their meaning and which may be empty: FOCUS Specification 1.0, section 2 (focus.finops.org). What is ours
alone is in columns that begin with ``x_``, as the specification says. A run has a row per calendar month (UTC) and
per part of its cost; rows of a run sum to its price.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

from shoal.display.cost import Period, RunCost, money, period_of

PROVIDER = "Shoal"
COLUMNS = (
    "AvailabilityZone",
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "SkuId",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "Tags",
    "x_Part",
    "x_Team",
    "x_Template",
)
_WHAT = {
    "head": "its head",
    "starting": "workers before it was Ready",
    "used": "workers that computed",
    "idle": "workers that were idle",
}


def rows(charges: Iterable[RunCost]) -> Iterator[dict[str, str]]:
    """One row per charge and part that cost anything; ``charges`` are priced, and cut by months."""
    for charge in charges:
        if charge.money is None:
            raise ValueError(f"{charge.cluster.name} has no price")
        for part, what in _WHAT.items():
            amount, hours = getattr(charge.money, part), getattr(charge.core_hours, part)
            if amount or hours:
                yield _row(charge, part, what, amount, hours)


def _row(charge: RunCost, part: str, what: str, amount: Fraction, hours: Fraction) -> dict[str, str]:
    cluster, plan = charge.cluster, charge.cluster.plan
    first, following = period_of(charge.begin, Period.MONTH)
    cost = _plain(money(amount, charge.currency).amount)
    quantity = _plain(money(hours, "").amount)
    unit = _plain(money(amount / hours, "").amount) if hours else ""
    filled = {
        "BilledCost": cost,
        "BillingAccountId": plan.target,
        "BillingAccountName": plan.target,
        "BillingCurrency": charge.currency,
        "BillingPeriodEnd": _moment(following),
        "BillingPeriodStart": _moment(first),
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{plan.engine.value} cluster {cluster.name}: {what}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": _moment(charge.end),
        "ChargePeriodStart": _moment(charge.begin),
        "ConsumedQuantity": quantity,
        "ConsumedUnit": "Core-Hours",
        "ContractedCost": cost,
        "ContractedUnitPrice": unit,
        "EffectiveCost": cost,
        "InvoiceIssuerName": PROVIDER,
        "ListCost": cost,
        "ListUnitPrice": unit,
        "PricingCategory": "Standard",
        "PricingQuantity": quantity,
        "PricingUnit": "Core-Hours",
        "ProviderName": PROVIDER,
        "PublisherName": PROVIDER,
        "ResourceId": cluster.id,
        "ResourceName": cluster.name,
        "ResourceType": "Cluster",
        "ServiceCategory": "Analytics",
        "ServiceName": f"{PROVIDER} {plan.engine.value}",
        "SubAccountId": cluster.owner,
        "SubAccountName": cluster.owner,
        "Tags": json.dumps(dict(cluster.tags), sort_keys=True),
        "x_Part": part,
        "x_Team": cluster.team or "",
        "x_Template": plan.template,
    }
    return {column: filled.get(column, "") for column in COLUMNS}


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _plain(amount: Decimal) -> str:
    """Without an exponent, which the specification does not admit beside digits in every reader."""
    return f"{amount:f}"
