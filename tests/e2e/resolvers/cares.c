// c-ares as curl, gRPC and Envoy use it: ares_getaddrinfo() with the search list of resolv.conf.
#include <ares.h>
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>

#define MAX 4096

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void fail(int status)
{
    if (status == ARES_ENOTFOUND || status == ARES_ENODATA)
        puts("-");
    else
        printf("!%s\n", ares_strerror(status));
}

static void on_addresses(void *arg, int status, int timeouts, struct ares_addrinfo *found)
{
    char *texts[MAX];
    int count = 0;

    (void)arg, (void)timeouts;
    if (status != ARES_SUCCESS) {
        fail(status);
        return;
    }
    for (struct ares_addrinfo_node *one = found->nodes; one && count < MAX; one = one->ai_next) {
        char text[INET6_ADDRSTRLEN];
        const void *address = one->ai_family == AF_INET
            ? (const void *)&((struct sockaddr_in *)one->ai_addr)->sin_addr
            : (const void *)&((struct sockaddr_in6 *)one->ai_addr)->sin6_addr;
        if (inet_ntop(one->ai_family, address, text, sizeof text))
            texts[count++] = strdup(text);
    }
    qsort(texts, count, sizeof *texts, by_text);
    for (int i = 0; i < count; i++)
        printf("%s%s", i ? "," : "", texts[i]);
    putchar('\n');
    ares_freeaddrinfo(found);
}

static void on_name(void *arg, int status, int timeouts, struct hostent *host)
{
    (void)arg, (void)timeouts;
    if (status != ARES_SUCCESS)
        fail(status);
    else
        puts(host->h_name);
}

static void wait_for(ares_channel channel)
{
    for (;;) {
        fd_set in, out;
        struct timeval most, *wait;

        FD_ZERO(&in);
        FD_ZERO(&out);
        int count = ares_fds(channel, &in, &out);
        if (!count)
            return;
        wait = ares_timeout(channel, NULL, &most);
        select(count, &in, &out, NULL, wait);
        ares_process(channel, &in, &out);
    }
}

int main(int argc, char **argv)
{
    ares_channel channel;
    struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};

    if (ares_library_init(ARES_LIB_INIT_ALL) || ares_init(&channel))
        return 1;
    for (int i = 1; i < argc; i++) {
        printf("%s=", argv[i]);
        if (!strncmp(argv[i], "ptr:", 4)) {
            struct in_addr address;
            inet_pton(AF_INET, argv[i] + 4, &address);
            ares_gethostbyaddr(channel, &address, sizeof address, AF_INET, on_name, NULL);
        } else {
            ares_getaddrinfo(channel, argv[i], NULL, &hints, on_addresses, NULL);
        }
        wait_for(channel);
        fflush(stdout);
    }
    ares_destroy(channel);
    return 0;
}
