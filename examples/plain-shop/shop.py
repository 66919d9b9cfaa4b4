"""An ordinary RabbitMQ shop that knows nothing of Backstitch: orders go into `shop.orders`, and what the consumer
rejects goes into `shop.dlq`.

    python shop.py produce 100      puts 100 orders into the queue; every tenth has a negative amount
    python shop.py consume          handles what is there, and rejects what it can't; prints what it handled
    python shop.py consume --bank-is-down    rejects every order over 50 as well

The server is that of AMQP_URL.
"""

import json
import os
import sys

import pika


def connect():
    channel = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])).channel()
    channel.queue_declare("shop.dlq", durable=True)
    channel.queue_declare("shop.orders", durable=True, arguments={
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "shop.dlq"})
    return channel


def produce(channel, count):
    channel.confirm_delivery()
    for number in range(count):
        order = {"order": number, "amount": -number if number % 10 == 9 else number}
        properties = pika.BasicProperties(message_id=f"order-{number}", type="order.placed", delivery_mode=2,
                                          content_type="application/json")
        channel.basic_publish("", "shop.orders", json.dumps(order), properties)
    print(f"{count} orders")


def consume(channel, bank_is_down):
    handled, rejected = set(), 0
    for method, properties, body in channel.consume("shop.orders", inactivity_timeout=1):
        if method is None:
            break
        order = json.loads(body)
        if order["amount"] < 0 or bank_is_down and order["amount"] > 50:
            channel.basic_reject(method.delivery_tag, requeue=False)
            rejected += 1
        else:
            handled.add(properties.message_id)
            channel.basic_ack(method.delivery_tag)
    channel.cancel()
    print(f"{len(handled)} handled, {rejected} rejected")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["produce", count]:
            produce(connect(), int(count))
        case ["consume", *options] if options in ([], ["--bank-is-down"]):
            consume(connect(), bool(options))
        case _:
            sys.exit(__doc__)
