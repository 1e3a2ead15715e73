"""Every metric Pegel publishes: name, type, labels, help.

Publishers, rules, dashboards and the documentation all import this list, so that a name exists once.
Names and types follow Prometheus' conventions: base units, counters end in `_total`, and a label's value
never comes from a request unless the profile or the configuration names it.
"""

from dataclasses import dataclass
from typing import Literal

MetricType = Literal["counter", "gauge", "histogram"]

_MODEL = ("model_name", "model_version")
_GPU = ("uuid", "gpu")
_MIG = (*_GPU, "mig_uuid", "mig_profile")
_GPU_POD = ("namespace", "pod", "container", "uuid", "mig_uuid", "mig_profile", "team", "attribution")

LATENCY_BUCKETS_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
LABEL_DELAY_BUCKETS_SECONDS = (
    1.0, 10.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0, 604_800.0, 2_592_000.0,
)  # fmt: skip

JUDGED_LABELS = 500
"""ml_model_accuracy is that of so many latest labelled rows, and of what else was judged with the oldest of them."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family as Prometheus sees it. `buckets` are a histogram's upper bounds, without +Inf."""

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def openmetrics_name(self) -> str:
        """The family's name in OpenMetrics, where a counter's samples carry the suffix and its family doesn't."""
        return self.name.removesuffix("_total") if self.type == "counter" else self.name


# Build
BUILD_INFO = Metric(
    "pegel_build_info", "gauge", "Always 1; the version of Pegel that runs here, and the model that it watches.",
    (*_MODEL, "version"),
)  # fmt: skip

# Traffic of a model, counted exactly by the forwarder
INFERENCE_REQUESTS = Metric(
    "ml_inference_requests_total",
    "counter",
    "Requests by the status of their answer; none where there was no answer.",
    (*_MODEL, "protocol", "code"),
)
INFERENCE_DURATION = Metric(
    "ml_inference_duration_seconds", "histogram",
    "From the request's first byte to the answer's last.", _MODEL, LATENCY_BUCKETS_SECONDS,
)  # fmt: skip
INFERENCE_FIRST_BYTE = Metric(
    "ml_inference_time_to_first_byte_seconds", "histogram",
    "From the request's first byte to the answer's first.", _MODEL, LATENCY_BUCKETS_SECONDS,
)  # fmt: skip
INFERENCE_IN_FLIGHT = Metric(
    "ml_inference_requests_in_flight", "gauge", "Requests whose answer is not complete.", _MODEL
)
INFERENCE_OUTCOMES = Metric(
    "ml_inference_outcomes_total", "counter",
    "How requests ended: ok, error (status 5xx or a broken answer), client_abort, timeout, "
    "unfollowed (it, or its answer, could not be framed).", (*_MODEL, "outcome"),
)  # fmt: skip
INFERENCE_RATE = Metric(
    "inference_requests_per_second",
    "gauge",
    "Requests a second over the last 15 seconds, for autoscaling.",
    _MODEL,
)
INFERENCE_ROWS = Metric("ml_inference_rows_total", "counter", "Rows that the analyser decoded.", _MODEL)

# Drift
FEATURE_ROWS = Metric(
    "ml_feature_rows_total", "counter", "Rows per feature and bin of the profile.",
    (*_MODEL, "feature", "bin", "reference"),
)  # fmt: skip
FEATURE_REFERENCE_ROWS = Metric(
    "ml_feature_reference_rows", "gauge", "The reference's rows per feature and bin (its rows times the share).",
    (*_MODEL, "feature", "bin", "reference"),
)  # fmt: skip
FEATURE_EXPECTED_ROWS = Metric(
    "ml_feature_expected_rows_total", "counter",
    "Where the reference tells the hours of the day apart: rows per feature and bin that it expected of those counted.",
    (*_MODEL, "feature", "bin", "reference"),
)  # fmt: skip
FEATURE_HETEROGENEITY = Metric(
    "ml_feature_heterogeneity", "gauge",
    "Where the reference tells the hours of the day apart: chi-square by which its windows differ beyond chance.",
    (*_MODEL, "feature"),
)  # fmt: skip
FEATURE_INVALID = Metric(
    "ml_feature_invalid_total", "counter", "Values that could not be binned.", (*_MODEL, "feature", "reason")
)
FEATURE_DRIFT = Metric(
    "ml_feature_drift",
    "gauge",
    "Distance of the last window from the reference.",
    (*_MODEL, "feature", "measure"),
)
FEATURE_DRIFT_LIMIT = Metric(
    "ml_feature_drift_limit", "gauge", "What PSI stays below without drift, at the window's number of rows.",
    (*_MODEL, "feature"),
)  # fmt: skip
FEATURE_DRIFT_EVIDENCE = Metric(
    "ml_feature_drift_evidence",
    "gauge",
    "log10 of the evidence that this feature has drifted.",
    (*_MODEL, "feature"),
)
DRIFT_EVIDENCE = Metric("ml_drift_evidence", "gauge", "log10 of the evidence that any input has drifted.", _MODEL)
DRIFT_EVIDENCE_LIMIT = Metric(
    "ml_drift_evidence_limit", "gauge", "log10 of the evidence at which drift is reported.", _MODEL
)
DATA_DRIFT_SCORE = Metric("ml_data_drift_score", "gauge", "Share of the inputs that are in drift, 0 to 1.", _MODEL)
DATA_DRIFT_DETECTED = Metric(
    "ml_data_drift_detected", "gauge", "1 while this replica's detector reports data drift.", _MODEL
)
PREDICTION_DRIFT_EVIDENCE = Metric(
    "ml_prediction_drift_evidence", "gauge",
    "log10 of the evidence that any prediction has drifted, with the limit of ml_drift_evidence.", _MODEL,
)  # fmt: skip
PREDICTION_DRIFT_DETECTED = Metric(
    "ml_prediction_drift_detected", "gauge", "1 while this replica's detector reports drift of predictions.", _MODEL
)
DRIFT_DESIGN_EFFECT = Metric(
    "ml_drift_design_effect", "gauge",
    "So many rows in time order count as one, because they resemble their neighbours; 1 where that is assumed.",
    (*_MODEL, "feature"),
)  # fmt: skip

# Accuracy
MODEL_ACCURACY = Metric("ml_model_accuracy", "gauge", "Share of labelled rows predicted right.", _MODEL)
MODEL_ACCURACY_LOWER = Metric("ml_model_accuracy_lower", "gauge", "Lower end of the 95 % Wilson interval.", _MODEL)
MODEL_ACCURACY_UPPER = Metric("ml_model_accuracy_upper", "gauge", "Upper end of the 95 % Wilson interval.", _MODEL)
MODEL_ACCURACY_LABELS = Metric(
    "ml_model_accuracy_labels", "gauge", "Labelled rows that ml_model_accuracy is the accuracy of.", _MODEL
)
MODEL_ACCURACY_ESTIMATED = Metric(
    "ml_model_accuracy_estimated", "gauge",
    "Accuracy to expect of the latest predictions by their scores, without labels; it cannot see that scores have come "
    "to mean something else.", _MODEL,
)  # fmt: skip
MODEL_ACCURACY_ESTIMATED_ERROR = Metric(
    "ml_model_accuracy_estimated_error", "gauge",
    "Standard error of ml_model_accuracy_estimated, as large as the reference is small.", _MODEL,
)  # fmt: skip
MODEL_QUALITY = Metric(
    "ml_model_quality", "gauge",
    "Of the latest labelled rows, by metric: precision, recall, f1 (of the positive class, or the mean of several), "
    "roc_auc, brier, ece; of a regression mae, rmse, r2.",
    (*_MODEL, "metric"),
)  # fmt: skip
QUALITY_STATES = ("ok", "immature", "insufficient", "unknown")
MODEL_QUALITY_STATE = Metric(
    "ml_model_quality_state", "gauge",
    "1 for the state that holds: ok, immature (labels wait for others of their time), insufficient (too few labels), "
    "unknown (labels are no fair sample of the predictions, so that there is no accuracy).",
    (*_MODEL, "state"),
)  # fmt: skip
CONFUSION = Metric(
    "ml_confusion_total", "counter", "Labelled rows by predicted and actual class of the profile, all others as other.",
    (*_MODEL, "predicted", "actual"),
)  # fmt: skip
CLASS_OUTCOMES = Metric(
    "ml_class_outcomes_total", "counter",
    "Where there are more than 20 classes: labelled rows by class of the profile and outcome (true_positive, "
    "false_positive, false_negative).",
    (*_MODEL, "class", "outcome"),
)  # fmt: skip
LABELS = Metric(
    "ml_labels_total", "counter", "Feedback items by what became of them: matched, duplicate, unmatched, rejected.",
    (*_MODEL, "outcome"),
)  # fmt: skip
LABEL_DELAY = Metric(
    "ml_label_delay_seconds",
    "histogram",
    "From the prediction to its label.",
    _MODEL,
    LABEL_DELAY_BUCKETS_SECONDS,
)
LABEL_COVERAGE = Metric(
    "ml_label_coverage_ratio", "gauge", "Share of the predictions old enough to be judged that have a label, 0 to 1.",
    _MODEL,
)  # fmt: skip
PREDICTIONS_DROPPED = Metric(
    "ml_predictions_dropped_total", "counter",
    "Predictions that made room for newer ones before they had a label and were old enough to be judged.", _MODEL,
)  # fmt: skip
PREDICTIONS_RETENTION = Metric(
    "ml_predictions_retention_seconds", "gauge",
    "How long predictions are kept for their labels, at the rate of those that are kept.", _MODEL,
)  # fmt: skip
ACCURACY_DROP_EVIDENCE = Metric(
    "ml_accuracy_drop_evidence", "gauge", "log10 of the evidence that accuracy is below the reference's.", _MODEL
)
ACCURACY_DROP_EVIDENCE_LIMIT = Metric(
    "ml_accuracy_drop_evidence_limit", "gauge", "log10 of the evidence at which a drop of accuracy is reported.", _MODEL
)
ACCURACY_DROP_DETECTED = Metric(
    "ml_accuracy_drop_detected", "gauge", "1 while this replica's labels show accuracy below the reference's.", _MODEL
)

# The reference
REFERENCE_INFO = Metric(
    "ml_reference_info", "gauge", "Always 1; the reference in use and whether it was given or learned.",
    (*_MODEL, "reference", "source"),
)  # fmt: skip
REFERENCE_READY = Metric("ml_reference_ready", "gauge", "1 when there is a reference to compare with.", _MODEL)
REFERENCE_CREATED = Metric(
    "ml_reference_created_timestamp_seconds", "gauge", "When the reference was made, as a Unix time.", _MODEL
)

# The tap
TAP_EXCHANGES = Metric(
    "pegel_tap_exchanges_total", "counter", "Exchanges by what became of their copy.", (*_MODEL, "outcome")
)
TAP_OTHER_MODEL_REQUESTS = Metric(
    "pegel_tap_other_model_requests_total", "counter",
    "Requests for other models or versions than the served one, by the status of their answer, none without one:"
    " forwarded, not read, and counted nowhere else. Until it is known which name is the model's, all count as its.",
    (*_MODEL, "code"),
)  # fmt: skip
TAP_UNDECODABLE = Metric(
    "pegel_tap_undecodable_total", "counter", "Exchanges counted and not decoded, by what they look like or why.",
    (*_MODEL, "reason"),
)  # fmt: skip
TAP_UNFOLLOWED = Metric(
    "pegel_tap_unfollowed_connections_total", "counter",
    "How often a connection could be followed no longer: its requests are not counted from there on, or until one"
    " begins for certain.",
    (*_MODEL, "reason"),
)  # fmt: skip
TAP_BYTES = Metric("pegel_tap_bytes_total", "counter", "Bytes forwarded.", (*_MODEL, "direction"))
TAP_CONNECTIONS = Metric("pegel_tap_connections", "gauge", "Open client connections.", _MODEL)
TAP_ANALYSER_RESTARTS = Metric(
    "pegel_tap_analyser_restarts_total", "counter", "How often the analyser was started again.", _MODEL
)
TAP_ANALYSER_UP = Metric("pegel_tap_analyser_up", "gauge", "1 while the analyser answers.", _MODEL)
TAP_UNWATCHED_SECONDS = Metric(
    "pegel_tap_unwatched_seconds_total", "counter",
    "Seconds in which a connection was open whose requests can't be told apart, and so are neither counted nor read.",
    _MODEL,
)  # fmt: skip
TAP_ADMIN_REFUSED = Metric(
    "pegel_tap_admin_connections_refused_total", "counter",
    "Connections to the admin port, and to a sink's, that were closed to make room for new ones.", _MODEL,
)  # fmt: skip

# GPUs
GPU_INFO = Metric(
    "nvidia_gpu_info", "gauge", "Always 1; what this GPU is, and whether simulated.",
    (*_GPU, "name", "minor_number", "pci_bus_id", "driver_version", "cuda_version", "simulated"),
)  # fmt: skip
GPU_UP = Metric(
    "nvidia_gpu_up", "gauge", "1 while the driver answers for this GPU; without one, a single 0 with empty labels.",
    _GPU,
)  # fmt: skip
GPU_DEVICES = Metric("nvidia_gpu_devices", "gauge", "GPUs that the driver lists.")
GPU_DRIVER_RELEASED = Metric(
    "nvidia_gpu_driver_released", "gauge", "1 while the driver is left alone on request, as for its upgrade."
)
GPU_READING_AGE = Metric("nvidia_gpu_reading_age_seconds", "gauge", "Age of the last reading.", _GPU)
GPU_UTILIZATION = Metric(
    "nvidia_gpu_utilization_ratio", "gauge", "Share of the sample period in which a kernel ran, 0 to 1.", _GPU
)
GPU_MEMORY_UTILIZATION = Metric(
    "nvidia_gpu_memory_utilization_ratio", "gauge",
    "Share of the sample period in which memory was read or written, 0 to 1.", _GPU,
)  # fmt: skip
GPU_MEMORY_USED = Metric("nvidia_gpu_memory_used_bytes", "gauge", "Framebuffer memory in use.", _GPU)
GPU_MEMORY_TOTAL = Metric("nvidia_gpu_memory_total_bytes", "gauge", "Framebuffer memory.", _GPU)
GPU_ENCODER_UTILIZATION = Metric(
    "nvidia_gpu_encoder_utilization_ratio",
    "gauge",
    "Share of the sample period in which the encoder ran, 0 to 1.",
    _GPU,
)
GPU_DECODER_UTILIZATION = Metric(
    "nvidia_gpu_decoder_utilization_ratio",
    "gauge",
    "Share of the sample period in which the decoder ran, 0 to 1.",
    _GPU,
)
GPU_MEMORY_RESERVED = Metric(
    "nvidia_gpu_memory_reserved_bytes", "gauge", "Framebuffer memory that the driver and the firmware keep.", _GPU
)
GPU_BAR1_USED = Metric("nvidia_gpu_bar1_used_bytes", "gauge", "BAR1 address space in use.", _GPU)
GPU_BAR1_TOTAL = Metric("nvidia_gpu_bar1_total_bytes", "gauge", "BAR1 address space.", _GPU)
GPU_POWER = Metric("nvidia_gpu_power_watts", "gauge", "Power drawn.", _GPU)
GPU_POWER_LIMIT = Metric("nvidia_gpu_power_limit_watts", "gauge", "Power limit in force.", _GPU)
GPU_POWER_LIMIT_BOUND = Metric(
    "nvidia_gpu_power_limit_bound_watts", "gauge", "Between which bounds (min, max) the limit can be set; its default.",
    (*_GPU, "bound"),
)  # fmt: skip
GPU_ENERGY = Metric("nvidia_gpu_energy_joules_total", "counter", "Energy used since the driver was loaded.", _GPU)
GPU_TEMPERATURE = Metric("nvidia_gpu_temperature_celsius", "gauge", "Temperature.", (*_GPU, "sensor"))
GPU_TEMPERATURE_LIMIT = Metric(
    "nvidia_gpu_temperature_limit_celsius", "gauge",
    "Temperature at which the GPU shuts down, slows down, or is at its highest for work (gpu_max, memory_max).",
    (*_GPU, "limit"),
)  # fmt: skip
GPU_TEMPERATURE_MARGIN = Metric(
    "nvidia_gpu_temperature_margin_celsius", "gauge", "Degrees that are left until the GPU slows down.", _GPU
)
GPU_CLOCK = Metric("nvidia_gpu_clock_hertz", "gauge", "Clock frequency.", (*_GPU, "clock"))
GPU_CLOCK_MAX = Metric("nvidia_gpu_clock_max_hertz", "gauge", "Highest clock frequency.", (*_GPU, "clock"))
GPU_PERFORMANCE_STATE = Metric(
    "nvidia_gpu_performance_state", "gauge", "P-state, from 0 (highest performance) to 15 (lowest).", _GPU
)
GPU_THROTTLED = Metric(
    "nvidia_gpu_throttled", "gauge",
    "1 while the clocks are lower than they could be for this reason; idle is one.", (*_GPU, "reason"),
)  # fmt: skip
GPU_THROTTLE_SECONDS = Metric(
    "nvidia_gpu_throttle_seconds_total", "counter", "Time in which the clocks were held down, by reason.",
    (*_GPU, "reason"),
)  # fmt: skip
GPU_XID_ERRORS = Metric(
    "nvidia_gpu_xid_errors_total", "counter",
    "Errors that the driver reported since the exporter started, by NVIDIA's XID code, other where that isn't known.",
    (*_GPU, "xid"),
)  # fmt: skip
GPU_XID_LAST = Metric(
    "nvidia_gpu_xid_last_timestamp_seconds", "gauge", "When the driver last reported an error, as a Unix time.", _GPU
)
GPU_XID_INFO = Metric(
    "nvidia_gpu_xid_info", "gauge", "Always 1; what an XID code that this node has seen means, and what to do.",
    ("xid", "class", "meaning", "advice"),
)  # fmt: skip
GPU_ECC_ENABLED = Metric("nvidia_gpu_ecc_enabled", "gauge", "1 while memory errors are detected and corrected.", _GPU)
GPU_ECC_ERRORS = Metric(
    "nvidia_gpu_ecc_errors_total", "counter",
    "Memory errors over the GPU's life, by severity (corrected, uncorrected) and the memory that they are in.",
    (*_GPU, "severity", "memory"),
)  # fmt: skip
GPU_REMAPPED_ROWS = Metric(
    "nvidia_gpu_remapped_rows", "gauge", "Rows of memory replaced by spare ones, by the errors that caused it.",
    (*_GPU, "cause"),
)  # fmt: skip
GPU_ROW_REMAP_PENDING = Metric(
    "nvidia_gpu_row_remap_pending", "gauge", "1 while a row waits for the GPU's reset to be replaced.", _GPU
)
GPU_ROW_REMAP_FAILED = Metric("nvidia_gpu_row_remap_failed", "gauge", "1 once a row could not be replaced.", _GPU)
GPU_RETIRED_PAGES = Metric(
    "nvidia_gpu_retired_pages", "gauge", "Pages of memory that are no longer used (before Ampere), by cause.",
    (*_GPU, "cause"),
)  # fmt: skip
GPU_RETIRED_PAGES_PENDING = Metric(
    "nvidia_gpu_retired_pages_pending", "gauge", "1 while a page waits for the driver's reload to be retired.", _GPU
)
GPU_RECOVERY_ACTION = Metric(
    "nvidia_gpu_recovery_action", "gauge", "1 for what the driver says must be done to recover this GPU; none is one.",
    (*_GPU, "action"),
)  # fmt: skip
GPU_PCIE_GENERATION = Metric("nvidia_gpu_pcie_generation", "gauge", "PCIe generation now; it falls when idle.", _GPU)
GPU_PCIE_GENERATION_MAX = Metric(
    "nvidia_gpu_pcie_generation_max", "gauge", "Highest PCIe generation of this GPU in this slot.", _GPU
)
GPU_PCIE_WIDTH = Metric("nvidia_gpu_pcie_width", "gauge", "PCIe lanes in use.", _GPU)
GPU_PCIE_WIDTH_MAX = Metric("nvidia_gpu_pcie_width_max", "gauge", "PCIe lanes of this GPU in this slot.", _GPU)
GPU_PCIE_REPLAYS = Metric("nvidia_gpu_pcie_replays_total", "counter", "PCIe packets that were sent again.", _GPU)
GPU_PCIE_BYTES = Metric("nvidia_gpu_pcie_bytes_total", "counter", "Bytes over PCIe.", (*_GPU, "direction"))
GPU_PCIE_RATE = Metric(
    "nvidia_gpu_pcie_bytes_per_second", "gauge", "Bytes a second over PCIe between the last two readings.",
    (*_GPU, "direction"),
)  # fmt: skip
GPU_PCIE_ERRORS = Metric("nvidia_gpu_pcie_errors_total", "counter", "PCIe errors by kind.", (*_GPU, "kind"))
GPU_NVLINK_UP = Metric("nvidia_gpu_nvlink_up", "gauge", "1 while this NVLink is active.", (*_GPU, "link"))
GPU_NVLINK_BYTES = Metric(
    "nvidia_gpu_nvlink_bytes_total", "counter", "Bytes of data over all NVLinks.", (*_GPU, "direction")
)
GPU_NVLINK_RATE = Metric(
    "nvidia_gpu_nvlink_bytes_per_second", "gauge", "Bytes a second over all NVLinks between the last two readings.",
    (*_GPU, "direction"),
)  # fmt: skip
GPU_NVLINK_ERRORS = Metric(
    "nvidia_gpu_nvlink_errors_total", "counter", "Errors of all NVLinks by kind.", (*_GPU, "kind")
)
GPU_FAN_SPEED = Metric("nvidia_gpu_fan_speed_ratio", "gauge", "Speed of a fan, 1 for its highest.", (*_GPU, "fan"))
GPU_SM_ACTIVE = Metric(
    "nvidia_gpu_sm_active_ratio",
    "gauge",
    "Share of the multiprocessors that were busy, 0 to 1 (Hopper and newer).",
    _GPU,
)
GPU_SM_OCCUPANCY = Metric(
    "nvidia_gpu_sm_occupancy_ratio", "gauge", "Active warps of those possible, 0 to 1 (Hopper and newer).", _GPU
)
GPU_TENSOR_ACTIVE = Metric(
    "nvidia_gpu_tensor_active_ratio", "gauge", "Share of time with tensor operations, 0 to 1 (Hopper and newer).", _GPU
)
GPU_DRAM_ACTIVE = Metric(
    "nvidia_gpu_dram_active_ratio", "gauge", "Memory bandwidth used of that possible, 0 to 1 (Hopper and newer).", _GPU
)
GPU_FP64_ACTIVE = Metric(
    "nvidia_gpu_fp64_active_ratio", "gauge", "Share of time with FP64 operations, 0 to 1 (Hopper and newer).", _GPU
)
GPU_FP32_ACTIVE = Metric(
    "nvidia_gpu_fp32_active_ratio", "gauge", "Share of time with FP32 operations, 0 to 1 (Hopper and newer).", _GPU
)
GPU_FP16_ACTIVE = Metric(
    "nvidia_gpu_fp16_active_ratio", "gauge", "Share of time with FP16 operations, 0 to 1 (Hopper and newer).", _GPU
)
GPU_PROCESSES = Metric("nvidia_gpu_processes", "gauge", "Processes with a context on this GPU.", (*_GPU, "kind"))
GPU_IMPLAUSIBLE = Metric(
    "nvidia_gpu_implausible_readings_total", "counter",
    "Values of the driver that could not be true and were left out.", _GPU,
)  # fmt: skip
GPU_STATE = Metric(
    "nvidia_gpu_state", "gauge",
    "1 for the state that holds: active, idle_held (no work, but memory held), idle, lost, unknown.", (*_GPU, "state"),
)  # fmt: skip
GPU_MIG_ENABLED = Metric("nvidia_gpu_mig_enabled", "gauge", "1 while the GPU is cut into MIG devices.", _GPU)
GPU_MIG_INFO = Metric(
    "nvidia_gpu_mig_info", "gauge", "Always 1; a MIG device: its profile and instances.",
    (*_MIG, "gpu_instance", "compute_instance"),
)  # fmt: skip
GPU_MIG_MEMORY_USED = Metric(
    "nvidia_gpu_mig_memory_used_bytes", "gauge", "Memory of a MIG device in use; part of its GPU's.", _MIG
)
GPU_MIG_MEMORY_TOTAL = Metric("nvidia_gpu_mig_memory_total_bytes", "gauge", "Memory of a MIG device.", _MIG)
GPU_MIG_UTILIZATION = Metric(
    "nvidia_gpu_mig_utilization_ratio", "gauge", "Share of time with work on a MIG device (Hopper and newer).", _MIG
)
GPU_MIG_SM_ACTIVE = Metric(
    "nvidia_gpu_mig_sm_active_ratio", "gauge", "As nvidia_gpu_sm_active_ratio, of a MIG device.", _MIG
)
GPU_MIG_TENSOR_ACTIVE = Metric(
    "nvidia_gpu_mig_tensor_active_ratio", "gauge", "As nvidia_gpu_tensor_active_ratio, of a MIG device.", _MIG
)
GPU_MIG_DRAM_ACTIVE = Metric(
    "nvidia_gpu_mig_dram_active_ratio", "gauge", "As nvidia_gpu_dram_active_ratio, of a MIG device.", _MIG
)
GPU_POD_ALLOCATED = Metric(
    "nvidia_gpu_pod_allocated", "gauge",
    "Always 1; a container and the GPU or MIG device that it holds: exclusive, mig, or equal_share where others may "
    "hold it too.",
    _GPU_POD,
)  # fmt: skip
GPU_POD_SECONDS = Metric(
    "nvidia_gpu_pod_seconds_total", "counter",
    "GPU time that a container has had, by its share of the GPU; what nobody held as unallocated.", _GPU_POD,
)  # fmt: skip
GPU_POD_IDLE_SECONDS = Metric(
    "nvidia_gpu_pod_idle_seconds_total", "counter", "That part of it in which the GPU did no work.", _GPU_POD
)
GPU_POD_ENERGY = Metric(
    "nvidia_gpu_pod_energy_joules_total", "counter", "Energy of the GPU by the same shares.", _GPU_POD
)
GPU_POD_COST = Metric(
    "nvidia_gpu_pod_cost_total", "counter",
    "Cost of the GPU time by the price table; all of a node's add up to its GPUs'.", (*_GPU_POD, "currency"),
)  # fmt: skip
GPU_POD_MEMORY_USED = Metric(
    "nvidia_gpu_pod_memory_used_bytes", "gauge",
    "Memory that a container uses: a GPU's or MIG device's that it has alone, else that of its processes.", _GPU_POD,
)  # fmt: skip
GPU_PRICE = Metric("nvidia_gpu_price_per_hour", "gauge", "What an hour of this GPU costs.", (*_GPU, "currency"))
GPU_POD_RESOURCES_UP = Metric("nvidia_gpu_pod_resources_up", "gauge", "1 while the kubelet answers who holds the GPUs.")
GPU_POD_RESOURCES_AGE = Metric(
    "nvidia_gpu_pod_resources_age_seconds", "gauge",
    "Age of the kubelet's last good answer, which counts for 60 seconds.",
)  # fmt: skip
GPU_POD_RESOURCES_UNKNOWN = Metric(
    "nvidia_gpu_pod_resources_unknown_devices", "gauge",
    "Device ids in that answer that fit no GPU of this node: their form or their number is not known.",
)  # fmt: skip
GPU_POD_LABELS = Metric(
    "nvidia_gpu_pod_labels", "gauge",
    "Always 1; a pod that holds a GPU with its Kubernetes labels that --pod-labels names, each as label_NAME.",
    ("namespace", "pod"),
)  # fmt: skip
GPU_API_UP = Metric(
    "nvidia_gpu_kubernetes_api_up", "gauge",
    "1 while the API server tells the node's objects of this resource: pods, or resourceslices, devices to claim.",
    ("resource",),
)  # fmt: skip
GPU_DUTY_CYCLE = Metric(
    "nvidia_gpu_duty_cycle", "gauge",
    "Percent of the sample period in which a kernel ran (the older name of nvidia_gpu_utilization_ratio).",
    ("minor_number", "uuid", "name"),
)  # fmt: skip

CATALOGUE: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""Every metric above, in the order of this page."""
