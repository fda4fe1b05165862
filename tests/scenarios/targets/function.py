"""A Lambda function that throttles, with what invokes it and who shares the account with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Self

from tests.scenarios.targets import parts
from tests.scenarios.targets.base import Target
from tests.scenarios.world import Metric, World, eventually

_ALIAS: Mapping[str, Any] = {"name": "live", "provisioned": None, "shifting": False}
_OTHER: Mapping[str, Any] = {
    "reserved": None,
    "opted_in": True,
    "concurrency": "none",
    "throttles": 0,
}
_OLD, _NEW = "1", "2"
_SHIFTED = {"AdditionalVersionWeights": {_NEW: 0.1}}

type Json = dict[str, Any]


@dataclass
class Function(Target):
    """One function."""

    KIND: ClassVar[str] = "function"
    GIVEN: ClassVar[Mapping[str, Any]] = {
        "function": {
            "reserved": 10,
            "opted_in": True,
            "caps": [],
            "url": False,
            "policy": [],
            "alias": None,
        },
        "others": [],
    }
    ALARM: ClassVar[str] = "throttles"
    THRESHOLD: ClassVar[float] = 1

    alias: str | None = None
    sources: list[str] = field(default_factory=list)
    """URLs of the queues that invoke it."""
    others: dict[str, str] = field(default_factory=dict)
    """Real names of the account's further functions, by the story's."""
    their_metrics: dict[str, Any] = field(default_factory=dict)
    """What they say where a picture says nothing of them, such as ``reports.throttles``."""

    @classmethod
    def make(cls, world: World, name: str, given: Mapping[str, Any]) -> Self:
        """Create a function with what invokes it, and the account's further functions."""
        wanted = given["function"]
        arn = parts.function(world, name, opted_in=wanted["opted_in"], reserved=wanted["reserved"])
        made = cls(world, name, arn)
        made._let_invoke(wanted)
        if wanted["alias"] is not None:
            made._make_alias({**_ALIAS, **wanted["alias"]})
        for other in given["others"]:
            made._make_other({**_OTHER, **other})
        return made

    def _let_invoke(self, wanted: Mapping[str, Any]) -> None:
        functions = self.world.client("lambda")
        for number, cap in enumerate(wanted["caps"]):
            url, arn = parts.queue(
                self.world, f"{self.name}-source-{number}", {}, VisibilityTimeout="180"
            )
            parts.mapping(self.world, arn, self.name, cap=cap)
            self.sources.append(url)
        if wanted["url"]:
            functions.create_function_url_config(FunctionName=self.name, AuthType="AWS_IAM")
        for number, principal in enumerate(wanted["policy"]):
            functions.add_permission(
                FunctionName=self.name,
                StatementId=f"invoke-{number}",
                Action="lambda:InvokeFunction",
                Principal=principal,
            )

    def _make_alias(self, wanted: Mapping[str, Any]) -> None:
        """Publish two versions, the first of which the alias names."""
        functions = self.world.client("lambda")
        self.alias = str(wanted["name"])
        functions.publish_version(FunctionName=self.name)
        functions.update_function_code(FunctionName=self.name, ZipFile=parts.code(2))
        functions.publish_version(FunctionName=self.name)
        functions.create_alias(FunctionName=self.name, Name=self.alias, FunctionVersion=_OLD)
        if wanted["provisioned"] is not None:
            self.change("provisioned", wanted["provisioned"])
            eventually(lambda: self._provisioned().get("Status") == "READY", "it is provisioned")
        if wanted["shifting"]:
            self.change("shifting", value=True)

    def _make_other(self, wanted: Mapping[str, Any]) -> None:
        short = wanted["name"]
        name = f"{self.name}-{short}"
        parts.function(self.world, name, opted_in=wanted["opted_in"], reserved=wanted["reserved"])
        self.others[short] = name
        for key in ("concurrency", "throttles"):
            self.their_metrics[f"{short}.{key}"] = wanted[key]

    def placeholders(self) -> Mapping[str, str]:
        names = {"function": self.name, "function_arn": self.arn, "alias": self.alias or ""}
        names["alias_arn"] = f"{self.arn}:{self.alias}" if self.alias else ""
        for short, name in self.others.items():
            names |= {short: name, f"{short}_arn": self._arn_of(name)}
        return names

    def settings(self) -> Json:
        found = {
            "reserved": parts.reservation(self.world, self.name),
            "provisioned": self._provisioned().get("RequestedProvisionedConcurrentExecutions"),
        }
        for short, name in self.others.items():
            found[f"{short}.reserved"] = parts.reservation(self.world, name)
        return found

    def change(self, setting: str, value: Any) -> None:
        functions = self.world.client("lambda")
        short, _, what = setting.rpartition(".")
        if what == "reserved":
            parts.reserve(self.world, self.others[short] if short else self.name, value)
        elif setting == "shifting":
            functions.update_alias(
                FunctionName=self.name, Name=self.alias, RoutingConfig=_SHIFTED if value else {}
            )
        elif value is None:
            functions.delete_provisioned_concurrency_config(
                FunctionName=self.name, Qualifier=self.alias
            )
        else:
            functions.put_provisioned_concurrency_config(
                FunctionName=self.name,
                Qualifier=self.alias,
                ProvisionedConcurrentExecutions=value,
            )

    def _provisioned(self) -> Json:
        functions = self.world.client("lambda")
        if self.alias is None:
            return {}
        try:
            return dict(
                functions.get_provisioned_concurrency_config(
                    FunctionName=self.name, Qualifier=self.alias
                )
            )
        except functions.exceptions.ProvisionedConcurrencyConfigNotFoundException:
            return {}

    def metrics(self) -> Mapping[str, Metric]:
        function = partial(Metric, "AWS/Lambda", {"FunctionName": self.name})
        account = partial(Metric, "AWS/Lambda", {})
        found = {
            "invocations": function("Invocations"),
            "errors": function("Errors"),
            "throttles": function("Throttles"),
            "concurrency": function("ConcurrentExecutions"),
            "duration": function("Duration"),
            "recursions": function("RecursiveInvocationsDropped"),
            "async_received": function("AsyncEventsReceived"),
            "account_concurrency": account("ConcurrentExecutions"),
            "account_unreserved": account("UnreservedConcurrentExecutions"),
            "account_throttles": account("Throttles"),
        }
        if self.alias is not None:
            resource = {"FunctionName": self.name, "Resource": f"{self.name}:{self.alias}"}
            alias = partial(Metric, "AWS/Lambda", resource)
            found["spillover"] = alias("ProvisionedConcurrencySpilloverInvocations")
            found["utilization"] = alias("ProvisionedConcurrencyUtilization")
        for short, name in self.others.items():
            other = partial(Metric, "AWS/Lambda", {"FunctionName": name})
            found[f"{short}.concurrency"] = other("ConcurrentExecutions")
            found[f"{short}.throttles"] = other("Throttles")
        return found

    def seed(self, picture: Mapping[str, Any]) -> None:
        unknown = {key for key in picture if "." in key} - self.metrics().keys()
        assert not unknown, f"there is none of {sorted(unknown)} among others"
        super().seed({**self.their_metrics, **picture})

    def alarm(self, dimension: str) -> Json:
        return {
            "Namespace": "AWS/Lambda",
            "MetricName": "Throttles",
            "Dimensions": [{"Name": "FunctionName", "Value": dimension}],
            "Statistic": "Sum",
            "Period": 1,
        }

    @property
    def beside(self) -> str:
        return next(iter(self.others.values()), f"{self.name}-other")

    def untag(self, what: str) -> None:
        parts.untag(self.world, self._arn_of(self._named(what)))

    def untag_once_read(self, what: str, role: str) -> None:
        tags = partial(parts.function_tags, self._named(what or "function"))
        self.world.once_tags_are_read(role, lambda: tags().clear())

    def _named(self, what: str) -> str:
        return {"function": self.name, **self.others}[what]

    def _arn_of(self, name: str) -> str:
        return self.arn.removesuffix(self.name) + name

    def forget(self) -> None:
        for url in self.sources:
            parts.forget_queue(self.world, url)
        for name in (self.name, *self.others.values()):
            self.world.client("lambda").delete_function(FunctionName=name)
        self.world.forget(self.metrics().values())
