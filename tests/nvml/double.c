/* A stand-in for NVIDIA's libnvidia-ml.so.1, for machines without a GPU.

   It is compiled against NVIDIA's own nvml.h, so its names and structures are the real ones, and tells what the
   file named by PEGEL_NVML_DOUBLE says, one "key value" a line, read anew at every call:

       driver_version 535.183.06      count 2              init_error 9 (a code of nvmlReturn_t)
       cuda_version 12020             hang nvmlDeviceGetPowerUsage (blocks until the line is gone)
       0.uuid GPU-...                 0.power 61000 (milliwatts; NVML's own units everywhere)
       1.lost 15                      (every call about this GPU returns the code)

   What the file doesn't mention is not supported. */

#include <nvml.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 256 };

/* The value of a key, or 0 when the file has none. */
static int find(const char *key, char value[LINE]) {
    const char *path = getenv("PEGEL_NVML_DOUBLE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[LINE];
    size_t length = strlen(key);
    int found = 0;
    while (file && !found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, key, length) && line[length] == ' ') {
            strcpy(value, line + length + 1);
            found = 1;
        }
    }
    if (file) fclose(file);
    return found;
}

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

/* A handle is the GPU's index plus one. */
static nvmlReturn_t key_of(nvmlDevice_t device, const char *name, char key[LINE]) {
    char lost[LINE];
    unsigned long long code;
    unsigned long index = (unsigned long)(uintptr_t)device - 1;
    snprintf(lost, sizeof lost, "%lu.lost", index);
    snprintf(key, LINE, "%lu.%s", index, name);
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

nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *number) {
    return device_unsigned(device, "minor_number", number);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci) {
    memset(pci, 0, sizeof *pci);
    return device_string(device, "pci_bus_id", pci->busId, sizeof pci->busId);
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *use) {
    nvmlReturn_t result = device_unsigned(device, "utilization", &use->gpu);
    return result == NVML_SUCCESS ? device_unsigned(device, "memory_utilization", &use->memory) : result;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    nvmlReturn_t result = device_number(device, "memory_total", &memory->total);
    if (result == NVML_SUCCESS) result = device_number(device, "memory_used", &memory->used);
    if (result == NVML_SUCCESS) memory->free = memory->total - memory->used;
    return result;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    if (memory->version != nvmlMemory_v2) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    nvmlReturn_t result = device_number(device, "memory_total", &memory->total);
    if (result == NVML_SUCCESS) result = device_number(device, "memory_used", &memory->used);
    if (result == NVML_SUCCESS) memory->free = memory->total - memory->used;
    memory->reserved = 0;
    return result;
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *power) {
    hang_if_told(__func__);
    return device_unsigned(device, "power", power);
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *limit) {
    return device_unsigned(device, "power_limit", limit);
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *energy) {
    return device_number(device, "energy", energy);
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

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t clock, unsigned int *megahertz) {
    static const char *const names[] = {"clock:graphics", "clock:sm", "clock:memory", "clock:video"};
    if (clock > NVML_CLOCK_VIDEO) return NVML_ERROR_INVALID_ARGUMENT;
    return device_unsigned(device, names[clock], megahertz);
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values) {
    for (int i = 0; i < count; i++) {
        char name[LINE];
        unsigned int number = 0;
        snprintf(name, sizeof name, "field_%u", values[i].fieldId);
        values[i].nvmlReturn = device_unsigned(device, name, &number);
        values[i].valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
        values[i].value.uiVal = number;
    }
    return NVML_SUCCESS;
}
