// A long link on one machine: two TUN devices, each in a network namespace of its own, and between
// them in each direction a rate, a delay and a queue that drops its tail.
//
//   emulator DELAY_MS RATE_MBIT QUEUE_MS
//
// Prints the descriptors of the two namespaces (enter: nsenter --net=/proc/PID/fd/N); in them are
// 10.77.0.1 and 10.77.0.2. Ends with its standard input or a SIGTERM and prints its counters as
// JSON. Nothing has a name: devices and namespaces go with the processes that use them, so a crash
// leaves nothing behind.
//
// Facts: Linux Documentation/networking/tuntap.rst (a device without TUNSETPERSIST ends with its
// descriptor), linux/if_tun.h, and virtio 1.2 §5.1.6 (struct virtio_net_hdr: with TSO a packet is a
// train of segments of gso_size bytes, each of which would have headers of its own on a wire).
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    ETHERNET_BYTES = 38,  // header 14, checksum 4, preamble 8, gap 12
    PACKET_BYTES = 65536 + 256,
    BATCH = 64,
    DEVICE_QUEUE = 10000,  // packets that wait in the kernel while we are not scheduled
};

struct packet {
    struct packet *next;
    uint64_t due_ns;
    size_t size;
    unsigned char bytes[];
};

// One direction. The wire is busy until `free_ns`; what waits for longer than the queue is dropped.
struct way {
    int from, to;
    struct packet *first, *last;
    uint64_t free_ns, packets, bytes, dropped, lost, worst_late_ns;
};

static uint64_t delay_ns, queue_ns;
static double ns_per_byte;
static volatile sig_atomic_t ended;

static void end(int signal_number) {
    (void)signal_number;
    ended = 1;
}

static void must(bool good, const char *what) {
    if (good) return;
    perror(what);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void set_address(struct ifreq *request, const char *text) {
    struct sockaddr_in *address = (struct sockaddr_in *)&request->ifr_addr;
    memset(address, 0, sizeof *address);
    address->sin_family = AF_INET;
    inet_pton(AF_INET, text, &address->sin_addr);
}

static void bring_up(const char *device, const char *address, const char *mask) {
    int control = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq request = {0};
    snprintf(request.ifr_name, IFNAMSIZ, "%s", device);
    if (address) {
        set_address(&request, address);
        must(ioctl(control, SIOCSIFADDR, &request) == 0, "address");
        set_address(&request, mask);
        must(ioctl(control, SIOCSIFNETMASK, &request) == 0, "netmask");
        request.ifr_qlen = DEVICE_QUEUE;
        must(ioctl(control, SIOCSIFTXQLEN, &request) == 0, "queue length");
    }
    must(ioctl(control, SIOCGIFFLAGS, &request) == 0, "flags");
    request.ifr_flags |= IFF_UP | IFF_RUNNING;
    must(ioctl(control, SIOCSIFFLAGS, &request) == 0, "up");
    close(control);
}

// What one connection learnt of the way shall not teach the next. The setting is the namespace's.
static void forget_metrics(void) {
    int file = open("/proc/sys/net/ipv4/tcp_no_metrics_save", O_WRONLY | O_CLOEXEC);
    must(file >= 0 && write(file, "1", 1) == 1, "tcp_no_metrics_save");
    close(file);
}

// Leaves this process in a new namespace with a new device in it; returns the device.
static int make_side(const char *address, int *namespace) {
    must(unshare(CLONE_NEWNET) == 0, "unshare");
    *namespace = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    forget_metrics();
    int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    must(device >= 0, "/dev/net/tun");
    struct ifreq request = {.ifr_name = "wan", .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    must(ioctl(device, TUNSETIFF, &request) == 0, "TUNSETIFF");
    must(ioctl(device, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) == 0, "TUNSETOFFLOAD");
    bring_up("lo", NULL, NULL);
    bring_up("wan", address, "255.255.255.0");
    return device;
}

// What the packet is on a wire: a train of segments pays for the headers of each.
static size_t wire_bytes(const unsigned char *bytes, size_t size) {
    struct virtio_net_hdr header;
    memcpy(&header, bytes, sizeof header);
    const unsigned char *ip = bytes + sizeof header;
    size_t length = size - sizeof header;
    bool train = (header.gso_type & ~VIRTIO_NET_HDR_GSO_ECN) == VIRTIO_NET_HDR_GSO_TCPV4;
    if (!train || !header.gso_size) return length + ETHERNET_BYTES;
    size_t ip_header = (ip[0] & 15u) * 4u;
    size_t headers = ip_header + (size_t)(ip[ip_header + 12] >> 4) * 4u;
    size_t segments = (length - headers + header.gso_size - 1) / header.gso_size;
    return length - headers + segments * (headers + ETHERNET_BYTES);
}

static void enqueue(struct way *way, const unsigned char *bytes, size_t size) {
    uint64_t now = now_ns();
    uint64_t begins = way->free_ns > now ? way->free_ns : now;
    if (begins - now > queue_ns) {
        way->dropped++;
        return;
    }
    struct packet *packet = malloc(sizeof *packet + size);
    must(packet != NULL, "malloc");
    size_t wire = wire_bytes(bytes, size);
    way->free_ns = begins + (uint64_t)((double)wire * ns_per_byte);
    *packet = (struct packet){.due_ns = way->free_ns + delay_ns, .size = size};
    memcpy(packet->bytes, bytes, size);
    if (way->first) way->last->next = packet;
    else way->first = packet;
    way->last = packet;
    way->packets++;
    way->bytes += wire;
}

static void receive(struct way *way) {
    static unsigned char bytes[PACKET_BYTES];
    for (int count = 0; count < BATCH; count++) {
        ssize_t size = read(way->from, bytes, sizeof bytes);
        if (size < (ssize_t)sizeof(struct virtio_net_hdr) + 20) return;
        enqueue(way, bytes, (size_t)size);
    }
}

static void deliver(struct way *way) {
    uint64_t now = now_ns();
    while (way->first && way->first->due_ns <= now) {
        struct packet *packet = way->first;
        way->first = packet->next;
        if (now - packet->due_ns > way->worst_late_ns) way->worst_late_ns = now - packet->due_ns;
        if (write(way->to, packet->bytes, packet->size) < 0) way->lost++;
        free(packet);
    }
}

static uint64_t wait_ns(const struct way *ways) {
    uint64_t now = now_ns(), least = 1000000000u;
    for (int i = 0; i < 2; i++) {
        if (!ways[i].first) continue;
        uint64_t due = ways[i].first->due_ns, left = due > now ? due - now : 0;
        if (left < least) least = left;
    }
    return least;
}

static void carry(struct way *ways) {
    struct pollfd polled[] = {
        {ways[0].from, POLLIN, 0}, {ways[1].from, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    while (!ended) {
        uint64_t wait = wait_ns(ways);
        struct timespec time = {(time_t)(wait / 1000000000u), (long)(wait % 1000000000u)};
        if (ppoll(polled, 3, &time, NULL) < 0) continue;
        for (int i = 0; i < 2; i++) deliver(&ways[i]);
        for (int i = 0; i < 2; i++)
            if (polled[i].revents) receive(&ways[i]);
        if (polled[2].revents) return;
    }
}

static void report(const char *name, const struct way *way, const char *after) {
    printf("\"%s\": {\"packets\": %llu, \"bytes\": %llu, \"dropped\": %llu, \"lost\": %llu, "
           "\"worst_late_ms\": %.1f}%s",
           name, (unsigned long long)way->packets, (unsigned long long)way->bytes,
           (unsigned long long)way->dropped, (unsigned long long)way->lost,
           (double)way->worst_late_ns / 1e6, after);
}

int main(int count, char **words) {
    if (count != 4) {
        fprintf(stderr, "usage: emulator DELAY_MS RATE_MBIT QUEUE_MS\n");
        return 2;
    }
    delay_ns = (uint64_t)(atof(words[1]) * 1e6);
    ns_per_byte = 8e3 / atof(words[2]);
    queue_ns = (uint64_t)(atof(words[3]) * 1e6);
    struct sigaction ending = {.sa_handler = end};
    sigaction(SIGTERM, &ending, NULL);
    sigaction(SIGINT, &ending, NULL);
    prctl(PR_SET_TIMERSLACK, 1);
    int here, there;
    int first = make_side("10.77.0.1", &here), second = make_side("10.77.0.2", &there);
    struct way ways[2] = {{.from = first, .to = second}, {.from = second, .to = first}};
    printf("%d %d\n", here, there);
    fflush(stdout);
    carry(ways);
    printf("{");
    report("up", &ways[0], ", ");
    report("down", &ways[1], "}\n");
    return 0;
}
