/* A stand-in for NVIDIA's libnvidia-ml.so.1, for machines without a GPU.

   It is compiled against NVIDIA's own nvml.h, so its names and structures are the real ones, and tells what the
   file named by PEGEL_NVML_DOUBLE says, one "key value" a line, read anew whenever it changes:

       driver_version 535.183.06      count 2              init_error 9 (a code of nvmlReturn_t)
       cuda_version 12020             hang nvmlDeviceGetPowerUsage (blocks until the line is gone)
       0.uuid GPU-...                 0.power 61000 (milliwatts; NVML's own units everywhere)
       1.lost 15                      (every call about this GPU returns the code)
       0.field_82 52                  0.field_161:3 7 (of NVLink 3)
       0.gpm 1                        0.gpm_5 37.5 (needs two samples)
       0.mig.1.uuid MIG-...           0.mig.1.gi 9, .ci 0, .slices 1, .memory_used ..., .gpm_2 ...
       0.process.0 4242 compute 1073741824 37 -1 (pid, kind, bytes or -1, percent or -1, MIG instance or -1)
       event 3 0 79                   (the third event: XID 79 of GPU 0; each number is told once)

   What the file doesn't mention is not supported. */

#define _GNU_SOURCE
#include <nvml.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 256, MIG_STEP = 4096 };

/* The file, as it was when it last changed. Threads of pynvml come here at once. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *text;
static char **lines; /* sorted by their keys, those of one key as in the file */
static size_t count;
static struct stat seen;

static int by_key(const void *one, const void *other) {
    const char *a = *(char *const *)one, *b = *(char *const *)other;
    size_t length_a = strcspn(a, " "), length_b = strcspn(b, " ");
    int order = memcmp(a, b, length_a < length_b ? length_a : length_b);
    if (order) return order;
    if (length_a != length_b) return length_a < length_b ? -1 : 1;
    return a < b ? -1 : a > b;
}

static void load(void) {
    const char *path = getenv("PEGEL_NVML_DOUBLE");
    struct stat now;
    FILE *file;
    if (!path || stat(path, &now)) {
        count = 0;
        seen.st_ino = 0;
        return;
    }
    if (text && now.st_ino == seen.st_ino && now.st_mtim.tv_nsec == seen.st_mtim.tv_nsec &&
        now.st_mtim.tv_sec == seen.st_mtim.tv_sec)
        return;
    free(text);
    free(lines);
    text = calloc(1, (size_t)now.st_size + 1);
    file = fopen(path, "r");
    if (file) {
        if (fread(text, 1, (size_t)now.st_size, file) == 0) text[0] = 0;
        fclose(file);
    }
    lines = calloc((size_t)now.st_size + 1, sizeof *lines);
    count = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) lines[count++] = line;
    qsort(lines, count, sizeof *lines, by_key);
    seen = now;
}

/* The value of a key's number-th line, or 0 when the file has none. */
static int find_nth(const char *key, int number, char value[LINE]) {
    size_t length = strlen(key), low = 0, high;
    int found = 0;
    pthread_mutex_lock(&lock);
    load();
    for (high = count; low < high;) { /* the first line whose key is not before this one */
        size_t middle = (low + high) / 2, own = strcspn(lines[middle], " ");
        int order = memcmp(lines[middle], key, own < length ? own : length);
        if (order < 0 || (order == 0 && own < length))
            low = middle + 1;
        else
            high = middle;
    }
    low += (size_t)number;
    if (low < count && !strncmp(lines[low], key, length) && lines[low][length] == ' ') {
        strncpy(value, lines[low] + length + 1, LINE - 1);
        value[LINE - 1] = 0;
        found = 1;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static int find(const char *key, char value[LINE]) { return find_nth(key, 0, value); }

static void hang_if_told(const char *function) {
    char value[LINE];
    while (find("hang", value) && !strcmp(value, function)) usleep(20000);
}

static nvmlReturn_t number_of(const char *key, unsigned long long *number) {
    char value[LINE];
    if (!find(key, value)) return NVML_ERROR_NOT_SUPPORTED;
    *number = strtoull(value, NULL, 10);
    return NVML_SUCCESS;
}

static nvmlReturn_t string_of(const char *key, char *out, unsigned int length) {
    char value[LINE];
    if (!find(key, value)) return NVML_ERROR_NOT_SUPPORTED;
    if (strlen(value) >= length) return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(out, value);
    return NVML_SUCCESS;
}

/* A handle is the GPU's index plus one; that of a MIG device has its own index plus one, MIG_STEP times, on top. */
static unsigned long gpu_of(nvmlDevice_t device) { return (unsigned long)(uintptr_t)device % MIG_STEP - 1; }

static nvmlReturn_t key_of(nvmlDevice_t device, const char *name, char key[LINE]) {
    char lost[LINE];
    unsigned long long code;
    unsigned long mig = (unsigned long)(uintptr_t)device / MIG_STEP;
    snprintf(lost, sizeof lost, "%lu.lost", gpu_of(device));
    if (mig)
        snprintf(key, LINE, "%lu.mig.%lu.%s", gpu_of(device), mig - 1, name);
    else
        snprintf(key, LINE, "%lu.%s", gpu_of(device), name);
    return number_of(lost, &code) == NVML_SUCCESS ? (nvmlReturn_t)code : NVML_SUCCESS;
}

static nvmlReturn_t device_number(nvmlDevice_t device, const char *name, unsigned long long *number) {
    char key[LINE];
    nvmlReturn_t result = key_of(device, name, key);
    return result == NVML_SUCCESS ? number_of(key, number) : result;
}

static nvmlReturn_t device_unsigned(nvmlDevice_t device, const char *name, unsigned int *number) {
    unsigned long long wide;
    nvmlReturn_t result = device_number(device, name, &wide);
    if (result == NVML_SUCCESS) *number = (unsigned int)wide;
    return result;
}

static nvmlReturn_t device_string(nvmlDevice_t device, const char *name, char *out, unsigned int length) {
    char key[LINE];
    nvmlReturn_t result = key_of(device, name, key);
    return result == NVML_SUCCESS ? string_of(key, out, length) : result;
}

/* Functions that give one number under one name. */
#define UNSIGNED(function, name)                                                \
    nvmlReturn_t function(nvmlDevice_t device, unsigned int *number) {           \
        hang_if_told(__func__);                                                  \
        return device_unsigned(device, name, number);                            \
    }
#define LONG(function, name)                                                     \
    nvmlReturn_t function(nvmlDevice_t device, unsigned long long *number) {     \
        hang_if_told(__func__);                                                  \
        return device_number(device, name, number);                              \
    }

UNSIGNED(nvmlDeviceGetMinorNumber, "minor_number")
UNSIGNED(nvmlDeviceGetPowerUsage, "power")
UNSIGNED(nvmlDeviceGetEnforcedPowerLimit, "power_limit")
UNSIGNED(nvmlDeviceGetCurrPcieLinkGeneration, "pcie_generation")
UNSIGNED(nvmlDeviceGetCurrPcieLinkWidth, "pcie_width")
UNSIGNED(nvmlDeviceGetMaxPcieLinkGeneration, "pcie_max_generation")
UNSIGNED(nvmlDeviceGetMaxPcieLinkWidth, "pcie_max_width")
UNSIGNED(nvmlDeviceGetPcieReplayCounter, "pcie_replays")
UNSIGNED(nvmlDeviceGetMaxMigDeviceCount, "max_migs")
UNSIGNED(nvmlDeviceGetGpuInstanceId, "gi")
UNSIGNED(nvmlDeviceGetComputeInstanceId, "ci")
LONG(nvmlDeviceGetTotalEnergyConsumption, "energy")
LONG(nvmlDeviceGetCurrentClocksEventReasons, "throttle_reasons")
LONG(nvmlDeviceGetCurrentClocksThrottleReasons, "throttle_reasons")

nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
    unsigned long long code;
    (void)flags;
    hang_if_told(__func__);
    return number_of("init_error", &code) == NVML_SUCCESS ? (nvmlReturn_t)code : NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    return string_of("driver_version", version, length);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
    unsigned long long number;
    nvmlReturn_t result = number_of("cuda_version", &number);
    if (result == NVML_SUCCESS) *version = (int)number;
    return result;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
    unsigned long long number;
    nvmlReturn_t result = number_of("count", &number);
    if (result == NVML_SUCCESS) *count = (unsigned int)number;
    return result;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    char key[LINE];
    *device = (nvmlDevice_t)(uintptr_t)(index + 1);
    return key_of(*device, "", key);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length) {
    return device_string(device, "uuid", uuid, length);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length) {
    return device_string(device, "name", name, length);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci) {
    memset(pci, 0, sizeof *pci);
    return device_string(device, "pci_bus_id", pci->busId, sizeof pci->busId);
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *use) {
    nvmlReturn_t result = device_unsigned(device, "utilization", &use->gpu);
    return result == NVML_SUCCESS ? device_unsigned(device, "memory_utilization", &use->memory) : result;
}

static nvmlReturn_t memory_of(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    nvmlReturn_t result = device_number(device, "memory_total", &memory->total);
    if (result == NVML_SUCCESS) result = device_number(device, "memory_used", &memory->used);
    if (result == NVML_SUCCESS && device_number(device, "memory_reserved", &memory->reserved)) memory->reserved = 0;
    if (result == NVML_SUCCESS) memory->free = memory->total - memory->used - memory->reserved;
    return result;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    nvmlMemory_v2_t newer = {0};
    nvmlReturn_t result = memory_of(device, &newer);
    memory->total = newer.total, memory->used = newer.used, memory->free = newer.total - newer.used;
    return result;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    return memory->version == nvmlMemory_v2 ? memory_of(device, memory) : NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
}

nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *bar1) {
    nvmlReturn_t result = device_number(device, "bar1_total", &bar1->bar1Total);
    if (result == NVML_SUCCESS) result = device_number(device, "bar1_used", &bar1->bar1Used);
    if (result == NVML_SUCCESS) bar1->bar1Free = bar1->bar1Total - bar1->bar1Used;
    return result;
}

static nvmlReturn_t engine(nvmlDevice_t device, const char *name, unsigned int *percent, unsigned int *period) {
    *period = 167000;
    return device_unsigned(device, name, percent);
}

nvmlReturn_t nvmlDeviceGetEncoderUtilization(nvmlDevice_t device, unsigned int *percent, unsigned int *period) {
    return engine(device, "encoder_utilization", percent, period);
}

nvmlReturn_t nvmlDeviceGetDecoderUtilization(nvmlDevice_t device, unsigned int *percent, unsigned int *period) {
    return engine(device, "decoder_utilization", percent, period);
}

nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, nvmlPstates_t *state) {
    unsigned int number;
    nvmlReturn_t result = device_unsigned(device, "pstate", &number);
    if (result == NVML_SUCCESS) *state = (nvmlPstates_t)number;
    return result;
}

nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_t *margin) {
    unsigned int celsius;
    nvmlReturn_t result = device_unsigned(device, "margin", &celsius);
    if (margin->version != nvmlMarginTemperature_v1) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (result == NVML_SUCCESS) margin->marginTemperature = (int)celsius;
    return result;
}

nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, nvmlTemperatureThresholds_t which, unsigned int *celsius) {
    static const char *const names[] = {"threshold:shutdown", "threshold:slowdown", "threshold:memory_max", "threshold:gpu_max"};
    if (which > NVML_TEMPERATURE_THRESHOLD_GPU_MAX) return NVML_ERROR_INVALID_ARGUMENT;
    return device_unsigned(device, names[which], celsius);
}

nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, nvmlMemoryErrorType_t severity, nvmlEccCounterType_t counter,
                                             nvmlMemoryLocation_t place, unsigned long long *count) {
    static const char *const places[] = {"l1", "l2", "dram", "register", "texture", "shared", "cbu", "sram"};
    char name[LINE];
    if (place >= NVML_MEMORY_LOCATION_COUNT || counter != NVML_AGGREGATE_ECC) return NVML_ERROR_INVALID_ARGUMENT;
    snprintf(name, sizeof name, "ecc_%s:%s", severity == NVML_MEMORY_ERROR_TYPE_CORRECTED ? "corrected" : "uncorrected", places[place]);
    return device_number(device, name, count);
}

nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int link, nvmlEnableState_t *state) {
    char name[LINE];
    unsigned int number;
    snprintf(name, sizeof name, "nvlink_state:%u", link);
    nvmlReturn_t result = device_unsigned(device, name, &number);
    if (result == NVML_SUCCESS) *state = (nvmlEnableState_t)number;
    return result;
}

nvmlReturn_t nvmlDeviceGetFanSpeed_v2(nvmlDevice_t device, unsigned int fan, unsigned int *percent) {
    char name[LINE];
    snprintf(name, sizeof name, "fan:%u", fan);
    return device_unsigned(device, name, percent);
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
    nvmlReturn_t result = device_unsigned(device, "mig_mode", current);
    *pending = *current;
    return result;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *mig) {
    char uuid[LINE];
    *mig = (nvmlDevice_t)((uintptr_t)device + (uintptr_t)MIG_STEP * (index + 1));
    nvmlReturn_t result = device_string(*mig, "uuid", uuid, sizeof uuid);
    return result == NVML_ERROR_NOT_SUPPORTED ? NVML_ERROR_NOT_FOUND : result;
}

nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes) {
    unsigned long long total = 0;
    memset(attributes, 0, sizeof *attributes);
    nvmlReturn_t result = device_unsigned(device, "slices", &attributes->gpuInstanceSliceCount);
    if (result != NVML_SUCCESS) return result;
    if (device_unsigned(device, "compute_slices", &attributes->computeInstanceSliceCount))
        attributes->computeInstanceSliceCount = attributes->gpuInstanceSliceCount;
    device_number(device, "memory_total", &total);
    attributes->memorySizeMB = total >> 20;
    return NVML_SUCCESS;
}

/* Samples of the performance monitor: the device and when. Too close together, and there is nothing to tell. */
struct nvmlGpmSample_st {
    nvmlDevice_t device;
    struct timespec at;
};

nvmlReturn_t nvmlGpmQueryDeviceSupport(nvmlDevice_t device, nvmlGpmSupport_t *support) {
    if (support->version != NVML_GPM_SUPPORT_VERSION) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (device_unsigned(device, "gpm", &support->isSupportedDevice) == NVML_ERROR_NOT_SUPPORTED) support->isSupportedDevice = 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpmSampleAlloc(nvmlGpmSample_t *sample) {
    *sample = calloc(1, sizeof **sample);
    return *sample ? NVML_SUCCESS : NVML_ERROR_MEMORY;
}

nvmlReturn_t nvmlGpmSampleFree(nvmlGpmSample_t sample) {
    free(sample);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpmSampleGet(nvmlDevice_t device, nvmlGpmSample_t sample) {
    char key[LINE];
    sample->device = device;
    clock_gettime(CLOCK_MONOTONIC, &sample->at);
    return key_of(device, "", key);
}

nvmlReturn_t nvmlGpmMigSampleGet(nvmlDevice_t device, unsigned int instance, nvmlGpmSample_t sample) {
    for (unsigned int index = 0; index < 8; index++) {
        nvmlDevice_t mig = (nvmlDevice_t)((uintptr_t)device + (uintptr_t)MIG_STEP * (index + 1));
        unsigned int gi;
        if (device_unsigned(mig, "gi", &gi) == NVML_SUCCESS && gi == instance) return nvmlGpmSampleGet(mig, sample);
    }
    return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlGpmMetricsGet(nvmlGpmMetricsGet_t *get) {
    nvmlGpmSample_t one = get->sample1, two = get->sample2;
    double seconds = (double)(two->at.tv_sec - one->at.tv_sec) + (double)(two->at.tv_nsec - one->at.tv_nsec) / 1e9;
    if (get->version != NVML_GPM_METRICS_GET_VERSION) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (one->device != two->device || seconds < 0.1) return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned int i = 0; i < get->numMetrics; i++) {
        char name[LINE], key[LINE], value[LINE];
        snprintf(name, sizeof name, "gpm_%u", get->metrics[i].metricId);
        get->metrics[i].nvmlReturn = key_of(two->device, name, key);
        if (get->metrics[i].nvmlReturn == NVML_SUCCESS && !find(key, value)) get->metrics[i].nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
        if (get->metrics[i].nvmlReturn == NVML_SUCCESS) get->metrics[i].value = strtod(value, NULL);
    }
    return NVML_SUCCESS;
}

/* Processes: lines `G.process.N pid kind bytes percent instance`. */
static int process_of(nvmlDevice_t device, int number, const char *kind, nvmlProcessInfo_t *info, long *percent) {
    char name[LINE], key[LINE], value[LINE], found[LINE];
    long long pid, bytes, instance;
    snprintf(name, sizeof name, "process.%d", number);
    key_of(device, name, key);
    if (!find(key, value)) return 0;
    if (sscanf(value, "%lld %255s %lld %ld %lld", &pid, found, &bytes, percent, &instance) != 5) return 0;
    info->pid = kind && strcmp(kind, found) ? 0 : (unsigned int)pid;
    info->usedGpuMemory = bytes < 0 ? (unsigned long long)NVML_VALUE_NOT_AVAILABLE : (unsigned long long)bytes;
    info->gpuInstanceId = instance < 0 ? 0xFFFFFFFFu : (unsigned int)instance;
    info->computeInstanceId = instance < 0 ? 0xFFFFFFFFu : 0;
    return 1;
}

static nvmlReturn_t processes(nvmlDevice_t device, const char *kind, unsigned int *count, nvmlProcessInfo_t *infos) {
    char key[LINE];
    unsigned int found = 0, room = *count;
    long percent;
    nvmlProcessInfo_t info;
    nvmlReturn_t result = key_of(device, "", key);
    if (result != NVML_SUCCESS) return result;
    for (int number = 0; process_of(device, number, kind, &info, &percent); number++) {
        if (!info.pid) continue;
        if (found < room && infos) infos[found] = info;
        found++;
    }
    *count = found;
    return found > room || (found && !infos) ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos) {
    return processes(device, "compute", count, infos);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos) {
    return processes(device, "graphics", count, infos);
}

nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *samples, unsigned int *count,
                                             unsigned long long since) {
    char key[LINE];
    unsigned int found = 0, room = *count;
    long percent;
    nvmlProcessInfo_t info;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    unsigned long long at = (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000;
    nvmlReturn_t result = key_of(device, "", key);
    if (result != NVML_SUCCESS) return result;
    for (int number = 0; process_of(device, number, NULL, &info, &percent); number++) {
        if (percent < 0 || at <= since) continue;
        if (found < room && samples) samples[found] = (nvmlProcessUtilizationSample_t){info.pid, at, (unsigned int)percent, 0, 0, 0};
        found++;
    }
    *count = found;
    if (!found) return NVML_ERROR_NOT_FOUND;
    return found > room || !samples ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

/* Events: each line `event NUMBER GPU XID` once, in the order of the numbers. */
struct nvmlEventSet_st {
    unsigned long long registered;
    long last;
};

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) {
    *set = calloc(1, sizeof **set);
    return *set ? NVML_SUCCESS : NVML_ERROR_MEMORY;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
    free(set);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set) {
    unsigned int none;
    if (device_unsigned(device, "no_events", &none) == NVML_SUCCESS) return NVML_ERROR_NOT_SUPPORTED;
    if (!(types & nvmlEventTypeXidCriticalError)) return NVML_ERROR_INVALID_ARGUMENT;
    set->registered |= 1ull << gpu_of(device);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int milliseconds) {
    for (unsigned int waited = 0; waited <= milliseconds; waited += 20) {
        char value[LINE];
        for (int line = 0; find_nth("event", line, value); line++) {
            long number, gpu, xid;
            if (sscanf(value, "%ld %ld %ld", &number, &gpu, &xid) != 3 || number <= set->last) continue;
            set->last = number;
            if (!(set->registered >> gpu & 1)) continue;
            memset(data, 0, sizeof *data);
            data->device = (nvmlDevice_t)(uintptr_t)(gpu + 1);
            data->eventType = nvmlEventTypeXidCriticalError;
            data->eventData = (unsigned long long)xid;
            data->gpuInstanceId = data->computeInstanceId = 0xFFFFFFFFu;
            return NVML_SUCCESS;
        }
        usleep(20000);
    }
    return NVML_ERROR_TIMEOUT;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensor, unsigned int *celsius) {
    if (sensor != NVML_TEMPERATURE_GPU) return NVML_ERROR_INVALID_ARGUMENT;
    return device_unsigned(device, "temperature", celsius);
}

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature) {
    unsigned int celsius;
    nvmlReturn_t result = device_unsigned(device, "temperature", &celsius);
    if (temperature->version != nvmlTemperature_v1) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (temperature->sensorType != NVML_TEMPERATURE_GPU) return NVML_ERROR_INVALID_ARGUMENT;
    if (result == NVML_SUCCESS) temperature->temperature = (int)celsius;
    return result;
}

static nvmlReturn_t clock_of(nvmlDevice_t device, const char *kind, nvmlClockType_t clock, unsigned int *megahertz) {
    static const char *const names[] = {"graphics", "sm", "memory", "video"};
    char name[LINE];
    if (clock > NVML_CLOCK_VIDEO) return NVML_ERROR_INVALID_ARGUMENT;
    snprintf(name, sizeof name, "%s:%s", kind, names[clock]);
    return device_unsigned(device, name, megahertz);
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t clock, unsigned int *megahertz) {
    return clock_of(device, "clock", clock, megahertz);
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, nvmlClockType_t clock, unsigned int *megahertz) {
    return clock_of(device, "max_clock", clock, megahertz);
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values) {
    hang_if_told(__func__);
    for (int i = 0; i < count; i++) {
        char name[LINE], key[LINE], value[LINE];
        unsigned int id = values[i].fieldId;
        int of_link = (id >= 161 && id <= 163) || (id >= 201 && id <= 222);
        if (of_link)
            snprintf(name, sizeof name, "field_%u:%u", id, values[i].scopeId);
        else
            snprintf(name, sizeof name, "field_%u", id);
        values[i].nvmlReturn = key_of(device, name, key);
        if (values[i].nvmlReturn == NVML_SUCCESS && !find(key, value)) values[i].nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
        if (values[i].nvmlReturn != NVML_SUCCESS) continue;
        if (strchr(value, '.')) {
            values[i].valueType = NVML_VALUE_TYPE_DOUBLE;
            values[i].value.dVal = strtod(value, NULL);
        } else if (value[0] == '-') {
            values[i].valueType = NVML_VALUE_TYPE_SIGNED_INT;
            values[i].value.siVal = (int)strtol(value, NULL, 10);
        } else if (strtoull(value, NULL, 10) >> 32) {
            values[i].valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
            values[i].value.ullVal = strtoull(value, NULL, 10);
        } else {
            values[i].valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
            values[i].value.uiVal = (unsigned int)strtoull(value, NULL, 10);
        }
    }
    return NVML_SUCCESS;
}
